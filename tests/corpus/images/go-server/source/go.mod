module corpus.test/server

go 1.19

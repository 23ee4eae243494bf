PRAGMA journal_mode = wal;
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, body BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO t SELECT i, printf('name %05d', i), zeroblob(200) FROM n;
CREATE INDEX by_name ON t (name);
SELECT 'sum', sum(id), round(avg(length(body)), 1) FROM t;
SELECT 'json', json_extract('{"a":[1,2,{"b":3}]}', '$.a[2].b');
SELECT 'date', strftime('%Y', 'now') > '2000', date(0, 'unixepoch', 'localtime');
SELECT 'random', length(hex(randomblob(16)));
CREATE VIRTUAL TABLE words USING fts5(text);
INSERT INTO words VALUES ('a real image'), ('another one');
SELECT 'match', count(*) FROM words WHERE words MATCH 'real';
ATTACH '/data/other.db' AS other;
CREATE TABLE other.copy AS SELECT * FROM t WHERE id % 2;
DETACH other;
.mode csv
.output /data/out.csv
SELECT id, name FROM t LIMIT 100;
.output
.mode list
.backup /data/backup.db
PRAGMA integrity_check;
VACUUM;
SELECT 'sorted', name FROM t ORDER BY hex(body), name DESC LIMIT 1;
INSERT INTO t (id) VALUES (1);

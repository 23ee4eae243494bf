CREATE TABLE thing (id serial PRIMARY KEY, name text NOT NULL UNIQUE, body jsonb);
INSERT INTO thing (name, body) SELECT 'n' || i, jsonb_build_object('i', i) FROM generate_series(1, 2000) i;

-- One row, one boolean: does it work?  An error is its own explanation.
select exists (select from pg_catalog.pg_am as m where m.amname = 'bm25') as works;

-- One row, one boolean: does it work?
select exists (select from pg_catalog.pg_am as m where m.amname = 'diskann') as works;

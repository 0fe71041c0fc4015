-- Runs only when the extension is not there yet and the role may create it.
-- cascade: it needs vector.
create extension if not exists vectorscale cascade;

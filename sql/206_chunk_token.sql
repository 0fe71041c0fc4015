-- Family: chunking.  Tokens without a tokenizer, for the method "token".
-- Callers: people in SQL, 202_chunk_levels.sql.
-- Errors: none of its own.
--
-- A token is five letters a to z of one word or what remains of it, three digits or what
-- remains, or any other character that is no white space.  bench/chunk.py compares with
-- two tokenizers: 15 to 27 % too many for English prose with all-minilm's WordPiece, right
-- for Chinese, Japanese, Russian and Arabic, 20 % too few for German.  It is the same in
-- every database: no class here depends on the locale.  What is cut between tokens has as
-- many on both sides together as before, and cut elsewhere no fewer: so parts whose
-- estimates fit, fit when they are joined.

create or replace function pgstack.estimate_tokens(input text)
returns integer
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select pg_catalog.regexp_count(
    input collate "C",
    '[A-Za-z]{1,5}|[0-9]{1,3}|[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'
  );
$$;

comment on function pgstack.estimate_tokens(text) is
'About how many tokens a language model makes of a text, without asking one.
A token is up to five letters a to z, up to three digits, or one other character that is no white space.
For all-minilm that is some 20 % too many for English prose, about right for Chinese, Japanese, Russian and Arabic,
and 20 % too few for German; docs/explanation/chunking.md has more. NULL in, NULL out. Raises nothing.';

create or replace function _pgstack.mark_tokens(input text, mark text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    input collate "C",
    '[A-Za-z]{1,5}|[0-9]{1,3}|[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]',
    mark || '\&',
    'g'
  );
$$;

comment on function _pgstack.mark_tokens(text, text) is
'A text with a mark before each token, as pgstack.estimate_tokens() counts them.';

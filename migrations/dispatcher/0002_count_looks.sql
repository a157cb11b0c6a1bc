-- How often was looked whether a delivery's predecessor has come: time in which nobody could look, or in which it could not
-- come, is no waiting.
alter table deliveries add column looks integer not null default 0;

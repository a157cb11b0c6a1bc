-- How often was looked whether a transition's predecessor has come: time in which nobody could look is no waiting.
alter table awaiting add column looks integer not null default 0;

-- What is past its retention is found by its age.
create index applied_transitions_by_age on applied_transitions (applied_at);
create index transitions_by_age on transitions (recorded_at);
create index deliveries_by_age on deliveries (finished_unix_nano);

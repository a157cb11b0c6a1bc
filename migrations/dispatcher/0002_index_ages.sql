-- What is past its retention is found by its age.
create index notifications_by_age on notifications (arrived_at);
create index deliveries_by_age on deliveries (finished_at) where reported_at is not null;

-- Alerts, the transitions that made them, and the notifications that are on their way.
-- Sample times are Unix nanoseconds, as they came; times of this database are timestamptz.

create table alerts (
    -- Hash of tenant, rule and series: the same alert for ever.
    id text primary key,
    tenant text not null,
    rule_id text not null,
    rule_version bigint not null,
    rule_name text not null,
    level text not null,
    condition text not null,
    state text not null check (state in ('firing', 'resolved')),
    labels jsonb not null,
    annotations jsonb not null,
    value double precision not null,
    line text not null,
    resource_id text not null,
    -- Who was told that it fires, and will be told that it is over.
    receivers text[] not null,
    starts_unix_nano bigint not null,
    -- 0 while firing.
    ends_unix_nano bigint not null,
    -- Sample time of the newest transition that was taken; older ones no longer change the alert.
    updated_unix_nano bigint not null,
    -- 0: only an end without a beginning was heard of; such an alert is not listed.
    occurrences bigint not null,
    -- The newest notification, whose deliveries are the alert's.
    notification_id text
);

create index alerts_by_start on alerts (tenant, starts_unix_nano desc, id desc) where occurrences > 0;
create index alerts_by_labels on alerts using gin (labels jsonb_path_ops);

-- What makes a repeat of the stream change nothing.
create table applied_transitions (
    id text primary key,
    applied_at timestamptz not null default now()
);

-- Why each alert is what it is.
create table transitions (
    id text primary key,
    alert_id text not null,
    tenant text not null,
    rule_id text not null,
    rule_version bigint not null,
    series text not null,
    state text not null,
    value double precision not null,
    line text not null,
    condition text not null,
    since_unix_nano bigint not null,
    sample_unix_nano bigint not null,
    received_unix_nano bigint not null,
    evaluated_unix_nano bigint not null,
    shard text not null,
    epoch bigint not null,
    stream_sequence bigint not null,
    -- What it did to the alert: opened, reopened, refreshed, resolved, late, unmatched.
    outcome text not null,
    -- The notification it caused, if any.
    notification_id text,
    recorded_at timestamptz not null default now()
);

create index transitions_by_alert on transitions (alert_id, sample_unix_nano);

-- The newest owner of each shard, and where in the stream it was first heard.
create table fences (
    shard text primary key,
    epoch bigint not null,
    first_sequence bigint not null
);

create table outbox (
    number bigint generated always as identity primary key,
    -- The notification's id, also the message's.
    id text not null unique,
    alert_id text not null,
    alert_state text not null,
    receivers integer not null,
    payload bytea not null,
    traceparent text,
    created_at timestamptz not null default now(),
    sent_at timestamptz
);

create index outbox_waiting on outbox (number) where sent_at is null;
create index outbox_sent on outbox (sent_at) where sent_at is not null;

-- What the dispatcher said about a notification at one receiver.
create table deliveries (
    notification_id text not null,
    receiver text not null,
    alert_id text not null,
    state text not null check (state in ('delivered', 'failed')),
    attempts integer not null,
    error text not null,
    finished_unix_nano bigint not null,
    primary key (notification_id, receiver)
);

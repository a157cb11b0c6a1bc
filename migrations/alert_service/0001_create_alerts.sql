-- Alerts, the transitions that made them, who was told what, and what fires in each shard.
-- Sample times are Unix nanoseconds, as they came; times of this database are timestamptz.
-- States, kinds, outcomes and reasons are texts without a check: a newer release may write others beside this one.

create table alerts (
    -- Hash of tenant, rule and series: the same alert for ever.
    id text primary key,
    tenant text not null,
    rule_id text not null,
    series text not null,
    -- The document's version, and the one in which what decides was last changed.
    rule_version bigint not null,
    evaluated_version bigint not null,
    kind text not null,
    rule_name text not null,
    level text not null,
    condition text not null,
    state text not null,
    -- Empty while it is on: resolved, lost, by_hand, or what the rule-engine says.
    ended_reason text not null default '',
    ended_by text not null default '',
    -- What identifies the series, the rule's own, severity and alertname; and what describes the resource.
    labels jsonb not null,
    descriptive jsonb not null,
    annotations jsonb not null,
    value double precision not null,
    line text not null,
    resource_id text not null,
    starts_unix_nano bigint not null,
    -- 0 while it is on.
    ends_unix_nano bigint not null,
    updated_unix_nano bigint not null,
    -- 0: only an end without a beginning was heard of; such an alert is not listed.
    occurrences bigint not null,
    -- Rises with each change.
    revision bigint not null,
    -- It began so late that nobody was told.
    late boolean not null,
    -- The newest transition that was taken, and its place among the decisions of its shard; what stands before it there
    -- no longer changes the alert.
    transition_id text not null,
    shard text not null,
    epoch bigint not null,
    decided_order bigint not null,
    evaluated_unix_nano bigint not null
);

-- One for each way to ask for a page.
create index alerts_by_start on alerts (tenant, starts_unix_nano desc, id desc) where occurrences > 0;
create index alerts_by_state on alerts (tenant, state, starts_unix_nano desc, id desc) where occurrences > 0;
create index alerts_by_rule on alerts (tenant, rule_id, starts_unix_nano desc, id desc) where occurrences > 0;
create index alerts_by_rule_and_state on alerts (tenant, rule_id, state, starts_unix_nano desc, id desc)
    where occurrences > 0;
create index alerts_by_labels on alerts using gin ((descriptive || labels) jsonb_path_ops);

-- Alerts that are on, and the last round of their shard that has confirmed them. Apart, since a round touches all of them.
create table firing (
    alert_id text primary key references alerts on delete cascade,
    shard text not null,
    decided_order bigint not null,
    confirmed_epoch bigint not null,
    confirmed_round bigint not null
) with (fillfactor = 70);

create index firing_by_shard on firing (shard);

-- What each shard has said of itself lately; complete when all parts were heard.
create table rounds (
    shard text not null,
    epoch bigint not null,
    round bigint not null,
    decided_order bigint not null,
    parts integer not null,
    heard integer[] not null,
    primary key (shard, epoch, round)
);

-- What is to be done, and when: one loop of all replicas does it.
create table timers (
    kind text not null,
    -- What it is about; for one kind and key there is one.
    key text not null,
    due_at timestamptz not null,
    primary key (kind, key)
);

create index timers_by_time on timers (due_at);

-- What makes a repeat of the stream change nothing.
create table applied_transitions (
    id text primary key,
    applied_at timestamptz not null default now()
);

create index applied_transitions_by_age on applied_transitions (applied_at);

-- Transitions that wait for the one before them, since they were first seen.
create table awaiting (
    id text primary key,
    predecessor text not null,
    since timestamptz not null default clock_timestamp()
);

create index awaiting_by_age on awaiting (since);

-- Why each alert is what it is.
create table transitions (
    id text primary key,
    alert_id text not null,
    tenant text not null,
    rule_id text not null,
    rule_version bigint not null,
    evaluated_version bigint not null,
    series text not null,
    state text not null,
    value double precision not null,
    line text not null,
    condition text not null,
    since_unix_nano bigint not null,
    sample_unix_nano bigint not null,
    received_unix_nano bigint not null,
    evaluated_unix_nano bigint not null,
    late boolean not null,
    shard text not null,
    epoch bigint not null,
    decided_order bigint not null,
    stream_sequence bigint not null,
    -- What it did to the alert: opened, reopened, refreshed, resolved, overtaken, unmatched, over.
    outcome text not null,
    -- The notification it caused, if any.
    notification_id text,
    recorded_at timestamptz not null default now()
);

create index transitions_by_alert on transitions (alert_id, recorded_at);
create index transitions_by_age on transitions (recorded_at);

-- The newest owner of each shard, and where in the stream it was first heard.
create table fences (
    shard text primary key,
    epoch bigint not null,
    first_sequence bigint not null
);

-- Alerts that are told together, by a route.
create table groups (
    id text primary key,
    tenant text not null,
    route text not null,
    key text not null,
    -- Rises with each notification; and what it was before the newest ones were made together.
    sequence bigint not null,
    previous bigint not null default 0
);

create index groups_by_age on groups (sequence);

-- Notifications that were made, so that news of them find what was told.
create table notifications (
    id text primary key,
    group_id text not null,
    -- firing or resolved.
    state text not null,
    created_at timestamptz not null default now()
);

create index notifications_by_age on notifications (created_at);

-- What each receiver was told last of each alert.
create table told (
    alert_id text not null references alerts on delete cascade,
    receiver text not null,
    group_id text not null,
    state text not null,
    notification_id text not null,
    told_at timestamptz not null default now(),
    primary key (alert_id, receiver, group_id)
);

create index told_by_notification on told (notification_id);
create index told_by_group on told (group_id);

-- What the dispatcher said about a notification at one receiver.
create table deliveries (
    notification_id text not null,
    receiver text not null,
    state text not null,
    attempts integer not null,
    error text not null,
    finished_unix_nano bigint not null,
    primary key (notification_id, receiver)
);

create index deliveries_by_age on deliveries (finished_unix_nano);

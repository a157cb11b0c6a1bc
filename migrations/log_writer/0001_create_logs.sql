-- Batches that are stored. A row here and its rows in the tables below come and go in one transaction, so a batch that
-- is delivered twice is stored once. Kept for longer than a stream or an agent's spool can reach back, and dropped by the
-- day: what is kept of it may have more rows than the logs.
create table applied (
    day date not null,
    tenant text not null,
    batch bytea not null,
    part integer not null,
    primary key (tenant, batch, part, day)
) partition by range (day);
create table applied_default partition of applied default;

-- The day under which all writers insert at a time. It is changed while none of them does, so that two that store the same
-- part at once always meet in one partition.
create table applied_day (
    one boolean primary key default true check (one),
    day date not null
);
insert into applied_day (day) values (current_date);

-- What log records say about their resource, once for each distinct set of attributes.
create table log_resources (
    tenant text not null,
    -- 64-bit hash of the attributes.
    ref bigint not null,
    resource_id text not null,
    attributes jsonb not null,
    -- The same as selectors see it: labels with their texts.
    labels jsonb not null,
    last_seen timestamptz not null default now(),
    primary key (tenant, ref)
);
create index log_resources_by_label on log_resources using gin (labels jsonb_path_ops);

-- Times are Unix nanoseconds: microseconds would make neighbours of one agent's lines equal.
create table logs (
    tenant text not null,
    time_ns bigint not null,
    batch bytea not null,
    part integer not null,
    idx integer not null,
    observed_ns bigint not null,
    resource_ref bigint not null,
    resource_id text not null,
    host_name text not null,
    service_name text not null,
    source text not null,
    severity smallint not null,
    -- The level in the source's own words.
    severity_text text not null,
    body text not null,
    attributes jsonb not null,
    trace_id bytea not null,
    span_id bytea not null
) partition by range (time_ns);
create index logs_by_time on logs (tenant, time_ns);
create table logs_default partition of logs default;
create index logs_default_by_age on logs_default (time_ns);

create table process_snapshots (
    tenant text not null,
    resource_id text not null,
    time_ns bigint not null,
    batch bytea not null,
    part integer not null,
    agent_id text not null,
    host_name text not null
) partition by range (time_ns);
create index process_snapshots_by_resource on process_snapshots (tenant, resource_id, time_ns);
create table process_snapshots_default partition of process_snapshots default;
create index process_snapshots_default_by_age on process_snapshots_default (time_ns);

create table processes (
    tenant text not null,
    resource_id text not null,
    time_ns bigint not null,
    batch bytea not null,
    part integer not null,
    pid integer not null,
    ppid integer not null,
    user_name text not null,
    executable text not null,
    command_line text not null,
    cpu_percent double precision not null,
    memory_percent double precision not null,
    threads integer not null,
    start_ns bigint not null,
    labels jsonb not null
) partition by range (time_ns);
create index processes_by_snapshot on processes (tenant, resource_id, time_ns);
create table processes_default partition of processes default;
create index processes_default_by_age on processes_default (time_ns);

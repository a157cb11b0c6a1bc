-- Batches that are stored. A row here and its rows in the tables below come and go in one transaction, so a batch that
-- is delivered twice is stored once. Kept longer than a stream or an agent's spool can reach back.
create table applied (
    tenant text not null,
    batch bytea not null,
    part integer not null,
    applied_at timestamptz not null default now(),
    primary key (tenant, batch, part)
);
create index applied_by_time on applied using brin (applied_at);

-- What log records say about their resource, once for each distinct set of attributes.
create table log_resources (
    tenant text not null,
    -- 64-bit hash of the attributes.
    ref bigint not null,
    resource_id text not null,
    attributes jsonb not null,
    last_seen timestamptz not null default now(),
    primary key (tenant, ref)
);

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
    level text not null,
    body text not null,
    attributes jsonb not null,
    trace_id bytea not null,
    span_id bytea not null
) partition by range (time_ns);
create index logs_by_time on logs (tenant, time_ns);
create table logs_default partition of logs default;

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

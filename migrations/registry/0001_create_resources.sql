-- Everything that reports. Times are Unix nanoseconds, as on the wire.
-- The collation "C" makes pages and locks go in byte order, as in the service.
create table resources (
    tenant text collate "C" not null,
    id text collate "C" not null,
    -- Texts without a check: a newer release may know more kinds and statuses than this one.
    kind text not null,
    name text not null,
    -- From telemetry, under their OpenTelemetry names. The newest sighting replaces them.
    labels jsonb not null,
    -- The users' own.
    tags jsonb not null default '{}',
    -- Labels and tags under the names that selectors have, and the tenant under `__tenant__`, for the index.
    facts jsonb not null,
    -- Empty for what reports without an agent.
    agent_id text not null,
    -- Empty at the top of the tree.
    parent_id text not null,
    first_seen bigint not null,
    -- When the sighting was made that labels, name, agent and parent come from.
    described_at bigint not null,
    -- online, idle, offline.
    status text not null,
    -- The last sign of life when the status changed last; Redis has those since.
    last_seen bigint not null,
    -- How often it reports, as far as was learned.
    report_interval bigint not null,
    primary key (tenant, id)
);

-- What lists filter by, each in the order of pages.
create index resources_by_kind on resources (tenant, kind, id);
create index resources_by_name on resources (tenant, name, id);
create index resources_by_status on resources (tenant, status, id);
create index resources_by_agent on resources (tenant, agent_id, id);
create index resources_by_parent on resources (tenant, parent_id, id);
create index resources_by_facts on resources using gin (facts jsonb_path_ops);
-- How many resources carry a label decides which index is the cheap one; the default of 100 examples guesses wide of it.
alter table resources alter column facts set statistics 500;
-- For who judges, and for who forgets.
create index resources_present on resources (tenant, id) where status <> 'offline';
-- Says more than it must, so that no list takes it: it knows no tenant.
create index resources_gone on resources (last_seen) where status = 'offline' and tags = '{}';

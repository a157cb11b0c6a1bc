-- Everything that reports. Times are Unix nanoseconds, as on the wire.
-- The collation "C" makes pages and locks go in byte order, as in the service.
create table resources (
    tenant text collate "C" not null,
    id text collate "C" not null,
    kind text not null,
    name text not null,
    -- From telemetry, under their OpenTelemetry names. The newest sighting replaces them.
    labels jsonb not null,
    -- The users' own.
    tags jsonb not null default '{}',
    -- Empty for what reports without an agent.
    agent_id text not null,
    -- Empty at the top of the tree.
    parent_id text not null,
    first_seen bigint not null,
    -- When the sighting was made that labels, name, agent and parent come from.
    described_at bigint not null,
    primary key (tenant, id)
);

-- What changes every few seconds, apart from what hardly ever does. Half-full pages let an update stay on its page.
create table presence (
    tenant text collate "C" not null,
    id text collate "C" not null,
    status text not null check (status in ('online', 'idle', 'offline')),
    last_seen bigint not null,
    primary key (tenant, id),
    foreign key (tenant, id) references resources on delete cascade
) with (fillfactor = 50);

-- Changes that are still to be published, written in the transaction that makes them.
create table outbox (
    position bigint generated always as identity primary key,
    -- Nats-Msg-Id: a repeat is taken once.
    message_id uuid not null,
    tenant text not null,
    -- A ResourceChanged.
    payload bytea not null
);

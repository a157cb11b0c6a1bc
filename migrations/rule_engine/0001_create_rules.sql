-- Rules with their history, and what evaluating them has come to.

-- Rises by one with every change of any rule; its row lock puts changes in one order.
create table revision (number bigint not null);
insert into revision values (0);

-- One row a version. A version was in force in revisions since_revision <= r < until_revision, so that a shard's next
-- owner can read on with the rules that its snapshot was made with.
create table rule_versions (
    rule_id uuid not null,
    version bigint not null,
    tenant text not null,
    name text not null,
    level text not null check (level in ('info', 'warning', 'error', 'critical')),
    selector text not null,
    -- Exactly one of these two.
    metric text,
    contains text,
    condition text not null,
    for_millis bigint not null,
    hold_millis bigint not null,
    labels jsonb not null,
    annotations jsonb not null,
    receivers text[] not null,
    disabled boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    since_revision bigint not null,
    -- Null: in force.
    until_revision bigint,
    retired_at timestamptz,
    primary key (rule_id, version),
    check ((metric is null) <> (contains is null))
);

create unique index rules_by_name on rule_versions (tenant, name) where until_revision is null;
create unique index rules_by_id on rule_versions (tenant, rule_id) where until_revision is null;
create index retired_versions on rule_versions (retired_at) where until_revision is not null;

-- What makes a repeated request answer the first rule.
create table idempotency_keys (
    tenant text not null,
    subject text not null,
    key text not null,
    -- SHA-256 of the document.
    document_hash bytea not null,
    rule_id uuid not null,
    created_at timestamptz not null default now(),
    primary key (tenant, subject, key)
);

create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Who shares the shards.
create table replicas (
    id uuid primary key,
    seen_at timestamptz not null
);

-- Where the evaluation of each shard stands. Written only under the shard's lease; an older epoch is refused.
create table snapshots (
    shard integer primary key,
    epoch bigint not null,
    -- The rules that everything up to these sequences was evaluated with.
    revision bigint not null,
    metrics_sequence bigint not null,
    metrics_published_unix_nano bigint not null,
    logs_sequence bigint not null,
    logs_published_unix_nano bigint not null,
    -- Zstandard over protobuf, see services/rule-engine/src/snapshot.rs.
    state bytea not null,
    saved_at timestamptz not null default now()
);

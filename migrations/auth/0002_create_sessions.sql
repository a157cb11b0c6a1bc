-- Private keys that sign tokens. Whoever reads this table can be anybody: only auth's own role may.
create table signing_keys (
    id text primary key,
    pkcs8 bytea not null,
    created_at timestamptz not null default now()
);

-- One login and every refresh token that descends from it.
create table sessions (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    source text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    -- logout, reuse
    revoked_for text
);

create index sessions_end on sessions (expires_at);

create table refresh_tokens (
    -- SHA-256 of the token; the token itself is nowhere.
    hash bytea primary key,
    session_id uuid not null references sessions on delete cascade,
    created_at timestamptz not null default now(),
    used_at timestamptz
);

create index refresh_tokens_session on refresh_tokens (session_id);

-- Who tried to get in, from where, and how it ended.
create table login_attempts (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    tenant text not null,
    username text not null,
    source text not null,
    -- succeeded, wrong_password, unknown_user, disabled, limited
    outcome text not null,
    user_id uuid
);

create index login_attempts_time on login_attempts (at);
create index login_attempts_user on login_attempts (tenant, username, at);

create table agent_tokens (
    -- The token's jti.
    id uuid primary key,
    tenant text not null references tenants,
    agent_id text not null,
    issued_by text not null,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null
);

create index agent_tokens_agent on agent_tokens (tenant, agent_id);

create table tenants (
    id text primary key,
    created_at timestamptz not null default now()
);

-- Roles are the same for every tenant; who holds one is not.
create table roles (
    name text primary key,
    description text not null
);

create table role_permissions (
    role text not null references roles on delete cascade,
    permission text not null,
    primary key (role, permission)
);

create table users (
    id uuid primary key,
    tenant text not null references tenants,
    username text not null,
    -- A PHC string: algorithm, parameters, salt and hash.
    password_hash text not null,
    disabled_at timestamptz,
    created_at timestamptz not null default now()
);

create unique index users_name on users (tenant, lower(username));

create table user_roles (
    user_id uuid not null references users on delete cascade,
    role text not null references roles,
    primary key (user_id, role)
);

insert into tenants (id) values ('default');

insert into roles (name, description) values
    ('admin', 'everything'),
    ('operator', 'runs the installation: changes rules and receivers, ends alerts, hands out and takes back agents'' credentials'),
    ('viewer', 'sees everything, changes nothing');

insert into role_permissions (role, permission)
select 'admin', unnest(array[
    'resources:read', 'metrics:read', 'logs:read', 'processes:read', 'rules:read', 'rules:write', 'alerts:read',
    'alerts:write', 'receivers:read', 'receivers:write', 'deliveries:read', 'status:read', 'agents:write',
    'telemetry:write', 'users:write', 'keys:write'])
union all
select 'operator', unnest(array[
    'resources:read', 'metrics:read', 'logs:read', 'processes:read', 'rules:read', 'rules:write', 'alerts:read',
    'alerts:write', 'receivers:read', 'receivers:write', 'deliveries:read', 'status:read', 'agents:write'])
union all
select 'viewer', unnest(array[
    'resources:read', 'metrics:read', 'logs:read', 'processes:read', 'rules:read', 'alerts:read',
    'receivers:read', 'deliveries:read', 'status:read']);

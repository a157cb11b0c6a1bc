//! Every route asks for a good token and for its permission, and the document says which.

use std::collections::{BTreeMap, HashSet};

use authn::Permission;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Gateway;

/// Open to everybody: whoever calls them has no token yet, or proves themselves otherwise.
const OPEN: [&str; 4] = ["/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout", "/.well-known/jwks.json"];

struct Route {
    method: Method,
    path: String,
    permission: Permission,
}

/// All routes of the document that need a token, with the permission that their text names.
async fn routes(gateway: &Gateway) -> Vec<Route> {
    let document: Value = gateway.request(Method::GET, "/openapi.json").send().await.unwrap().json().await.unwrap();
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if OPEN.contains(&path.as_str()) {
                continue;
            }
            let text = format!("{} {}", operation["summary"], operation["description"]);
            let named = Permission::ALL.into_iter().find(|permission| text.contains(&format!("`{permission}`")));
            let permission = named.unwrap_or_else(|| panic!("{method} {path} names no permission"));
            let method = method.to_uppercase().parse().unwrap();
            routes.push(Route { method, path: path.clone(), permission });
        }
    }
    assert!(routes.len() > 25, "{}", routes.len());
    routes
}

/// What each role may, as the migration says.
fn roles() -> BTreeMap<&'static str, HashSet<Permission>> {
    let sql = include_str!("../../../../migrations/auth/0001_create_users.sql");
    let (_, table) = sql.split_once("insert into role_permissions").unwrap();
    let rows = table.split("select '").skip(1).map(|row| {
        let (role, rest) = row.split_once('\'').unwrap();
        let names = rest.split('\'').skip(1).step_by(2);
        (role, names.map(|name| Permission::named(name).unwrap()).collect())
    });
    rows.collect()
}

async fn ask(gateway: &Gateway, route: &Route, token: Option<&str>) -> StatusCode {
    let path = route.path.replace("{id}", "7f4df2f6-0f0e-4a53-8f54-1b4c3b3d4c11").replace("{agent_id}", "web-1");
    let query = if path.contains("/metrics/") { "?query=up" } else { "" };
    let mut request = gateway.request(route.method.clone(), &format!("{path}{query}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let rule = json!({"name": "a", "level": "info", "metric": "up", "condition": "> 1", "receivers": ["ops"]});
    let body = match (&route.method, route.path.as_str()) {
        (&Method::POST, "/api/v1/rules") | (&Method::PUT, "/api/v1/rules/{id}") => Some(rule),
        (&Method::POST, "/api/v1/receivers") => Some(json!({"name": "a", "webhook": {"url": "https://example.org/"}})),
        (&Method::PUT, "/api/v1/receivers/{id}") => Some(json!({"webhook": {"url": "https://example.org/"}})),
        (&Method::POST, "/api/v1/receivers/{id}/rotate") => Some(json!({})),
        _ => None,
    };
    if let Some(body) = body {
        request = request.json(&body);
    }
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn no_route_is_reached_without_a_users_good_token() {
    let gateway = Gateway::start().await;
    let tokens = testkit::tokens();
    let agent = tokens.agent("default", "web-1");
    for route in routes(&gateway).await {
        for token in [None, Some("nonsense"), Some(agent.as_str())] {
            let status = ask(&gateway, &route, token).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{} {} {token:?}", route.method, route.path);
        }
    }
    gateway.process.stop().await;
}

#[tokio::test]
async fn each_role_reaches_what_its_permissions_open_and_nothing_else() {
    let gateway = Gateway::start().await;
    let roles = roles();
    assert_eq!(roles.keys().copied().collect::<Vec<_>>(), ["admin", "operator", "viewer"]);
    let routes = routes(&gateway).await;
    let mut reached = BTreeMap::new();
    for (role, permissions) in &roles {
        let token = testkit::tokens().user("default", &permissions.iter().copied().collect::<Vec<_>>());
        for route in &routes {
            let status = ask(&gateway, route, Some(&token)).await;
            let allowed = status != StatusCode::FORBIDDEN && status != StatusCode::UNAUTHORIZED;
            let expected = permissions.contains(&route.permission);
            assert_eq!(allowed, expected, "{role}: {} {} answered {status}", route.method, route.path);
            *reached.entry(*role).or_insert(0) += usize::from(allowed);
        }
    }
    assert_eq!(reached["admin"], routes.len());
    assert!(reached["viewer"] < reached["operator"] && reached["operator"] < reached["admin"], "{reached:?}");
    gateway.process.stop().await;
}

#[tokio::test]
async fn one_permission_opens_its_own_routes_alone() {
    let gateway = Gateway::start().await;
    let routes = routes(&gateway).await;
    for permission in Permission::ALL {
        let token = testkit::tokens().user("default", &[permission]);
        for route in &routes {
            let status = ask(&gateway, route, Some(&token)).await;
            let forbidden = status == StatusCode::FORBIDDEN;
            assert_eq!(forbidden, route.permission != permission, "{permission}: {} {}", route.method, route.path);
        }
    }
    gateway.process.stop().await;
}

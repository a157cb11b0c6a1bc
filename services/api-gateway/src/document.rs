//! `/openapi.json`: what the routes' own annotations say, with what is the same everywhere (errors, the caller's token) and what
//! they cannot say (patterns, exclusive choices).

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::instant::{STEP, TIME};

#[derive(OpenApi)]
#[openapi(info(
    title = "Sightline",
    description = "Times in answers are RFC 3339 in UTC; `from` and `to` take RFC 3339, Unix seconds or relative times such as `-15m`. \
        Lists answer `items` and `next`; pass `next` as `cursor`. Errors are `application/problem+json` with a stable `code`, \
        a `detail` that says what to do, `errors` for single fields, and the `request_id` that the logs carry. \
        Answers are compressed for clients that take gzip."
))]
pub(crate) struct Document;

const NAME: &str = r"^[a-z0-9._-]{1,63}$";
const AGENT_ID: &str = r"^[A-Za-z0-9._:-]{1,128}$";
/// Postgres keeps no NUL, and no text of ours has one.
const NO_NUL: &str = r"^[^\x00]*$";

/// Patterns of parameters, by name, wherever they stand.
fn parameter(name: &str) -> Value {
    match name {
        "from" | "to" | "time" => json!({ "pattern": TIME }),
        "step" => json!({ "pattern": STEP }),
        "agent_id" => json!({ "pattern": AGENT_ID }),
        "limit" => json!({ "minimum": 1, "maximum": 1_000 }),
        "Idempotency-Key" => json!({ "pattern": r"^[\x21-\x7e]{1,128}$" }),
        "If-Match" => json!({ "pattern": r#"^(\*|(W/)?"[\x21\x23-\x7e]*")$"# }),
        "query" => json!({ "minLength": 1, "pattern": NO_NUL }),
        _ => json!({ "pattern": NO_NUL }),
    }
}

/// A selector, an expression or a URL has a grammar that no pattern holds; lengths are in characters, where services count
/// bytes. What fits here and is wrong all the same is answered 400 with the field.
const PROPERTIES: [(&str, &str, &str); 20] = [
    ("Credentials", "tenant", r#"{"minLength": 1, "maxLength": 256, "pattern": "^[^\\x00]*$"}"#),
    ("Credentials", "username", r#"{"minLength": 1, "maxLength": 256, "pattern": "^[^\\x00]*$"}"#),
    ("Credentials", "password", r#"{"minLength": 1, "maxLength": 1024, "pattern": "^[^\\x00]*$"}"#),
    (
        "RuleDraft",
        "name",
        r#"{"maxLength": 120, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"}"#,
    ),
    ("RuleDraft", "match", r#"{"maxLength": 8192, "pattern": "^[^\\x00]*$"}"#),
    (
        "RuleDraft",
        "condition",
        r#"{"pattern": "^\\s*(>=|<=|==|!=|>|<)\\s*[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]{1,2})?\\s*$"}"#,
    ),
    (
        "RuleDraft",
        "metric",
        r#"{"maxLength": 200, "pattern": "^[^\\x00-\\x39\\x3b-\\x40\\x5b-\\x5e\\x60\\x7b-\\x7f][^\\x00-\\x2c\\x3b-\\x40\\x5b-\\x5e\\x60\\x7b-\\x7f]*$"}"#,
    ),
    ("RuleDraft", "for", DURATION),
    ("RuleDraft", "hold", DURATION),
    ("RuleDraft", "late_after", DURATION),
    ("RuleDraft", "receivers", r#"{"maxItems": 20, "uniqueItems": true}"#),
    (
        "RuleDraft",
        "labels",
        r#"{"maxProperties": 30, "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,99}$", "not": {"const": "alertname"}},
            "additionalProperties": {"type": "string", "maxLength": 1024, "pattern": "^[^\\x00]*$"}}"#,
    ),
    (
        "RuleDraft",
        "annotations",
        r#"{"maxProperties": 30, "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,99}$"},
            "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": "^[^\\x00]*$"}}"#,
    ),
    ("LogCondition", "contains", r#"{"minLength": 1, "maxLength": 512, "pattern": "^[^\\x00]+$"}"#),
    ("NewReceiver", "name", r#"{"pattern": "^[a-z0-9._-]{1,63}$"}"#),
    ("NewWebhook", "url", URL),
    ("NewWebhook", "secret", SECRET),
    ("WebhookChange", "url", URL),
    ("Rotation", "secret", SECRET),
    ("Rotation", "overlap", DURATION),
];
const DURATION: &str = r#"{"pattern": "^([0-9]{1,9}(ms|s|m|h|d))+$"}"#;
const URL: &str = r#"{"maxLength": 2048, "pattern": "^\\s*[Hh][Tt][Tt][Pp][Ss]?:[^@#]*$"}"#;
/// Standard Webhooks: 24 to 64 bytes in base64.
const SECRET: &str = r#"{"pattern": "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"}"#;

/// The document as it is served.
///
/// # Errors
/// None that a test would not have met.
pub(crate) fn finish(document: &utoipa::openapi::OpenApi) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value(document).context("write the API document")?;
    let schemas = &mut document["components"]["schemas"];
    schemas["Problem"] = problem();
    for (schema, property, constraint) in PROPERTIES {
        let constraint: Value = serde_json::from_str(constraint).context("read a constraint")?;
        constrain(&mut schemas[schema]["properties"][property], &constraint);
    }
    schemas["RuleDraft"]["oneOf"] = one_subject();
    schemas["RuleDraft"]["properties"]["receivers"]["items"]["pattern"] = NAME.into();
    document["components"]["securitySchemes"] =
        json!({ "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } });
    let paths = document["paths"].as_object_mut().context("find the paths")?;
    for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        complete(operation);
    }
    Ok(document)
}

fn complete(operation: &mut Value) {
    let open = operation["security"].as_array().is_some_and(|security| security.iter().any(|one| one == &json!({})));
    if !open {
        operation["security"] = json!([{ "bearer": [] }]);
    }
    let mut asks = false;
    for one in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        asks = true;
        let constraint = parameter(one["name"].as_str().unwrap_or_default());
        present(&mut one["schema"]);
        if is_text(&one["schema"]) || constraint.get("minimum").is_some() {
            constrain(&mut one["schema"], &constraint);
        }
    }
    let has_body = operation.get("requestBody").is_some();
    let mut errors = vec![("500", "Our own mistake"), ("503", "A part of Sightline is away; try again shortly")];
    if !open {
        errors.extend([("401", "No token, or one that is not good"), ("403", "The token's roles do not allow it")]);
    }
    if asks || has_body {
        errors.push(("400", "Something in the request is wrong; `errors` says which field"));
    }
    if has_body {
        errors.extend([("413", "The body is larger than 1 MiB"), ("415", "The body is not JSON")]);
    }
    if !operation["responses"].is_object() {
        operation["responses"] = json!({});
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, description) in errors {
        responses.entry(status).or_insert_with(|| json!({ "description": description }));
    }
    for (status, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        response["content"] =
            json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
        if status == "401" {
            response["headers"] = json!({ "WWW-Authenticate": { "schema": { "type": "string" } } });
        }
    }
}

fn is_text(schema: &Value) -> bool {
    schema["type"] == "string" && schema.get("enum").is_none()
}

/// A parameter is left out, never null.
fn present(schema: &mut Value) {
    if let Some(only) = schema["type"].as_array().and_then(|types| types.iter().find(|one| *one != "null")).cloned() {
        schema["type"] = only;
    }
    if let Some(kinds) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        kinds.retain(|kind| !kind.is_null());
    }
}

fn constrain(schema: &mut Value, constraint: &Value) {
    for (key, value) in constraint.as_object().into_iter().flatten() {
        schema[key] = value.clone();
    }
}

/// A rule watches a metric or lines, and has the fields of that alone.
fn one_subject() -> Value {
    let none = json!({ "type": "null" });
    json!([
        {
            "required": ["metric", "condition"],
            "properties": {
                "metric": { "type": "string" }, "condition": { "type": "string" }, "log": none, "hold": none,
            },
        },
        {
            "required": ["log"],
            "properties": { "log": { "type": "object" }, "metric": none, "condition": none, "for": none },
        },
    ])
}

fn problem() -> Value {
    let field = json!({
        "type": "object",
        "required": ["path", "message"],
        "properties": {
            "path": { "type": "string", "description": "Where it is, for example `condition` or `receivers[0]`" },
            "message": { "type": "string", "description": "What is wrong with it" },
        },
    });
    json!({
        "type": "object",
        "description": "An error (RFC 9457)",
        "required": ["title", "status", "code", "detail", "request_id"],
        "properties": {
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "code": { "type": "string", "description": "Stable" },
            "detail": { "type": "string", "description": "Says what to do" },
            "errors": { "type": "array", "items": field },
            "request_id": { "type": "string", "description": "The logs carry it too" },
        },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Everything that a `$ref` in `value` names.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target.clone()),
                        value => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    pub(crate) fn check(document: &Value) {
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 20);
        for target in found {
            let pointer = target.strip_prefix('#').expect("a reference within the document");
            assert!(document.pointer(pointer).is_some(), "{target} is nowhere");
        }
        for (schema, property, _) in PROPERTIES {
            let kind = &document["components"]["schemas"][schema]["properties"][property];
            let known = kind.get("type").or(kind.get("oneOf")).or(kind.get("$ref"));
            assert!(known.is_some(), "{schema}.{property} is constrained and does not exist");
        }
    }
}

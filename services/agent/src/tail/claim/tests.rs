//! Lines as sources write them.

use super::*;

fn of(line: &str) -> Option<&'static str> {
    claims(line).level.and_then(|level| model::Level::of_number(level.number.into())).map(model::Level::name)
}

#[test]
fn levels_are_found_where_sources_put_them() {
    let rows = [
        ("2026-11-21 04:00:00 WARN pool: slow", "warn"),
        ("[error] upstream timed out", "error"),
        ("2026/11/21 03:57:01 [error] 123#0: *1 connect() failed", "error"),
        ("[Fri Nov 21 03:57:01.123456 2026] [core:error] [pid 1] x", "error"),
        ("2026-11-21 03:57:01,123 - root - ERROR - broken", "error"),
        ("ERROR:root:broken", "error"),
        ("2026-11-21 03:57:01.123  INFO 1 --- [main] c.e.App : Started", "info"),
        ("03:57:01.123 [main] DEBUG c.e.App - x", "debug"),
        ("2026-11-21 03:57:01.123 | WARNING  | __main__:f:1 - x", "warn"),
        ("2026-11-21 03:57:01.123 UTC [42] FATAL:  the database system is starting up", "fatal"),
        ("2026-11-21T03:57:01.123Z  INFO app::main: listening", "info"),
        ("Nov 21 03:57:01 web1 kernel: CRIT: over heated", "fatal"),
        ("Nov 21 03:57:01 web app[42]: error: no space left", "error"),
        ("[03:57:01] [Server thread/INFO]: Done", "info"),
        ("npm ERR! code ENOENT", "error"),
        ("Error: something went wrong", "error"),
        ("panic: runtime error: index out of range", "fatal"),
        ("warn  - odd", "warn"),
        ("warn", "warn"),
        ("\x1b[31mERROR\x1b[0m disk full", "error"),
        ("\x1b[1;32mINFO\x1b[0m started", "info"),
        ("\x1b[33mwarn\x1b[39m: careful", "warn"),
        ("E1121 03:57:01.000000       1 main.go:7] broken", "error"),
        ("E1121 03:57:01 main.go:7] broken", "error"),
        ("I1121 03:57:01 main.go:7] ready for error", "info"),
        ("W1121 03:57:01 main.go:7] odd", "warn"),
        ("<3>1 2026-11-21T03:57:01Z h app - - - x", "error"),
        ("<14>Nov 21 03:57:01 h app: ERROR x", "info"),
        ("{\"level\":\"info\",\"msg\":\"no errors\"}", "info"),
        ("{\"msg\":\"error budget fine\",\"level\":\"info\"}", "info"),
        ("{\"level\":30,\"msg\":\"fatal flaw fixed\"}", "info"),
        ("{\"time\":1,\"nested\":{\"level\":\"fatal\"},\"level\":50}", "error"),
        ("{\"@l\":\"Warning\",\"@m\":\"x\"}", "warn"),
        ("{\"severity\":\"ERROR\",\"message\":\"cut off here", "error"),
        ("ts=1 level=warning msg=x", "warn"),
        ("time=\"2026-11-21T03:57:01Z\" level=error msg=\"a \\\" level=debug\"", "error"),
        ("msg=\"retry after error\" level=info", "info"),
        ("2026-11-21T03:57:01.123456789Z stderr F E1121 03:57:01 main.go:7] broken", "error"),
        ("2026-11-21T03:57:01.123456789Z stdout F WARN odd", "warn"),
        ("2026-11-21T03:57:01.123456789Z stdout F {\"msg\":\"no error\",\"level\":\"warn\"}", "warn"),
        ("Nov 21 03:57:01 web1 app[42]: {\"level\":\"error\",\"msg\":\"info\"}", "error"),
        ("Nov 21 03:57:01 web1 kubelet[42]: E1121 03:57:01.000000 42 x.go:7] broken", "error"),
        ("2026-11-21T03:57:01Z web1 app[42]: level=debug msg=\"an error\"", "debug"),
    ];
    for (line, expected) in rows {
        assert_eq!(of(line), Some(expected), "{line}");
    }
}

#[test]
fn words_inside_text_and_addresses_claim_nothing() {
    let rows = [
        "Out of memory: killed 42",
        "informational terrors",
        "retry after error",
        "connected to fatal.example.com",
        "10.0.0.1 - - \"GET /x?level=error HTTP/1.1\" 200",
        "GET /x?level=error",
        "error budget fine",
        "a=b then the word error",
        "{\"level\":3,\"msg\":\"fatal\"}",
        "{\"level\":{\"a\":1},\"msg\":\"ERROR\"}",
        "<999>1 x",
        "E1121 is a room",
        "",
        "\x1b[",
        "<",
    ];
    for line in rows {
        assert_eq!(of(line), None, "{line}");
    }
    assert_eq!(of(&format!("{} ERROR", "é".repeat(200))), None);
}

#[test]
fn a_line_that_is_nested_without_end_overflows_nothing() {
    for open in ["{\"a\":", "[", "{\"level\":["] {
        assert_eq!(of(&format!("{{\"x\":{}", open.repeat(20_000))), None);
        assert_eq!(of(&format!("{{\"level\":{}", open.repeat(20_000))), None);
    }
}

proptest::proptest! {
    #[test]
    fn any_line_can_be_read(line in "(\x1b\\[|[<>\\[\\]{}\"\\\\=: |!]|error|WARN|level|E1121 |<3>|2026-11-21T03:57:01Z |stdout F |é|\\PC){0,40}") {
        let claims = claims(&line);
        if let Some(level) = claims.level {
            proptest::prop_assert!(model::Level::of_number(level.number.into()).is_some());
        }
        let _ = super::super::stamp::written_at(&line, claims.time.as_deref());
        let _ = program(&line);
    }
}

#[test]
fn the_sources_own_word_is_kept() {
    let text = |line| claims(line).level.unwrap().text;
    assert_eq!(text("2026-11-21 04:00:00 WARNING slow"), "WARNING");
    assert_eq!(text("E1121 03:57:01 main.go:7] broken"), "E");
    assert_eq!(text("{\"level\":\"Critical\"}"), "Critical");
    assert_eq!(text("{\"level\":40}"), "warn");
}

#[test]
fn the_program_of_syslog_lines_is_found() {
    assert_eq!(program("Nov 21 03:57:01 web1 sshd[42]: Accepted publickey"), Some("sshd"));
    assert_eq!(program("Nov  1 03:57:01 web1 kernel: eth0 up"), Some("kernel"));
    assert_eq!(program("2026-11-21T03:57:01.123456+00:00 web1 systemd[1]: Started x."), Some("systemd"));
    assert_eq!(program("2026-11-21T03:57:01Z"), None);
    assert_eq!(program("2026-11-21T03:57:01Z INFO app: started"), None);
    assert_eq!(program("GET /index.html: 200"), None);
    assert_eq!(program("Nov 21 03:57:01 web1 what is this: x"), None);
    assert_eq!(program("äöü 21 03:57:01 web1 x: y"), None);
}

//! `/proc/net/dev` and `/proc/net/route`.

use super::{Malformed, number};

/// Totals of one interface since it came up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceTraffic {
    pub interface: String,
    pub bytes_received: u64,
    pub packets_received: u64,
    pub errors_in: u64,
    pub bytes_sent: u64,
    pub packets_sent: u64,
    pub errors_out: u64,
}

pub fn traffic(text: &str) -> Result<Vec<InterfaceTraffic>, Malformed> {
    // Two lines of headings.
    text.lines().skip(2).filter_map(|line| line.rsplit_once(':')).map(interface).collect()
}

fn interface((name, numbers): (&str, &str)) -> Result<InterfaceTraffic, Malformed> {
    let mut fields = numbers.split_ascii_whitespace();
    let mut next = |field| number(&mut fields, "/proc/net/dev", field);
    let (bytes_received, packets_received, errors_in) =
        (next("bytes received")?, next("packets received")?, next("receive errors")?);
    for _ in 0..5 {
        next("receive columns")?;
    }
    Ok(InterfaceTraffic {
        interface: name.trim().to_owned(),
        bytes_received,
        packets_received,
        errors_in,
        bytes_sent: next("bytes sent")?,
        packets_sent: next("packets sent")?,
        errors_out: next("send errors")?,
    })
}

/// The interface that the IPv4 default route leaves by.
pub fn default_interface(route: &str) -> Option<&str> {
    route.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let interface = fields.next()?;
        (fields.next()? == "00000000").then_some(interface)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_reads_with_both_directions() {
        let traffic = traffic(include_str!("../../tests/fixtures/net_dev.txt")).unwrap();
        let names: Vec<_> = traffic.iter().map(|interface| interface.interface.as_str()).collect();
        assert_eq!(names, ["lo", "ifb0", "ifb1", "eth0"]);
        assert_eq!(traffic[0].bytes_received, traffic[0].bytes_sent);
        assert!(traffic[3].bytes_received > traffic[3].bytes_sent && traffic[3].packets_sent > 0);
    }

    #[test]
    fn names_with_a_colon_and_counters_without_a_blank_read_too() {
        let text = "h\nh\neth0:1:7 1 2 0 0 0 0 0 9 3 4 0 0 0 0 0\n";
        let traffic = traffic(text).unwrap();
        assert_eq!(traffic[0].interface, "eth0:1");
        assert_eq!((traffic[0].bytes_received, traffic[0].bytes_sent, traffic[0].errors_out), (7, 9, 4));
    }

    #[test]
    fn the_default_route_names_its_interface() {
        let text = "Iface\tDestination\tGateway\neth1\t0000A8C0\t00000000\neth0\t00000000\t0100A8C0\n";
        assert_eq!(default_interface(text), Some("eth0"));
        assert_eq!(default_interface("Iface\tDestination\n"), None);
    }
}

//! `System.Network`.

use super::sheet::Sheet;
use crate::procfs::double;
use crate::procfs::network::InterfaceTraffic;

pub fn fill(sheet: &mut Sheet, traffic: &InterfaceTraffic) {
    let attributes = [("interface", traffic.interface.as_str())];
    let totals = [
        ("bytes_sent", "bytes", traffic.bytes_sent),
        ("bytes_recv", "bytes", traffic.bytes_received),
        ("packets_sent", "count", traffic.packets_sent),
        ("packets_recv", "count", traffic.packets_received),
        ("err_in", "count", traffic.errors_in),
        ("err_out", "count", traffic.errors_out),
    ];
    for (name, unit, total) in totals {
        sheet.counter(name, unit, double(total), &attributes);
    }
}

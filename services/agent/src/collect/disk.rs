//! `System.Disk` and `System.DiskIO`.

use super::sheet::Sheet;
use crate::procfs::disk::{DeviceActivity, Mount};
use crate::procfs::{double, percent};

/// How full a file system is, as statvfs(3) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    /// Without what is reserved for root.
    pub blocks_available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

pub fn fill_space(sheet: &mut Sheet, mount: &Mount, capacity: Capacity) {
    let attributes = [("device", mount.device.as_str()), ("fstype", &mount.fstype), ("mountpoint", &mount.mountpoint)];
    let bytes = |blocks: u64| double(blocks.saturating_mul(capacity.block_bytes));
    let used = bytes(capacity.blocks.saturating_sub(capacity.blocks_free));
    let free = bytes(capacity.blocks_available);
    sheet.gauge("total", "bytes", bytes(capacity.blocks), &attributes);
    sheet.gauge("used", "bytes", used, &attributes);
    sheet.gauge("free", "bytes", free, &attributes);
    // As df(1) counts: what is reserved for root is neither used nor free.
    sheet.gauge("used_percent", "percent", percent(used, used + free), &attributes);

    let inodes = double(capacity.inodes);
    let inodes_used = double(capacity.inodes.saturating_sub(capacity.inodes_free));
    sheet.gauge("inodes_total", "count", inodes, &attributes);
    sheet.gauge("inodes_used", "count", inodes_used, &attributes);
    sheet.gauge("inodes_free", "count", double(capacity.inodes_free), &attributes);
    sheet.gauge("inodes_used_percent", "percent", percent(inodes_used, inodes), &attributes);
}

pub fn fill_activity(sheet: &mut Sheet, device: &DeviceActivity) {
    let attributes = [("device", device.device.as_str())];
    let totals = [
        ("read_bytes", "bytes", device.read_bytes),
        ("write_bytes", "bytes", device.write_bytes),
        ("read_count", "count", device.read_count),
        ("write_count", "count", device.write_count),
        ("read_time", "milliseconds", device.read_milliseconds),
        ("write_time", "milliseconds", device.write_milliseconds),
        ("io_time", "milliseconds", device.io_milliseconds),
        ("weighted_io", "milliseconds", device.weighted_milliseconds),
        ("merged_read_count", "count", device.merged_read_count),
        ("merged_write_count", "count", device.merged_write_count),
    ];
    for (name, unit, total) in totals {
        sheet.counter(name, unit, double(total), &attributes);
    }
}

//! `System.Memory`.

use super::sheet::Sheet;
use crate::procfs::memory::Memory;
use crate::procfs::{double, percent};

pub fn fill(sheet: &mut Sheet, memory: &Memory) {
    let swap_used = memory.swap_total.saturating_sub(memory.swap_free);
    let sources = [
        ("physical", memory.total, memory.available, memory.used),
        ("swap", memory.swap_total, memory.swap_free, swap_used),
    ];
    for (source, total, available, used) in sources {
        let source = [("source", source)];
        sheet.gauge("total", "bytes", double(total), &source);
        sheet.gauge("available", "bytes", double(available), &source);
        sheet.gauge("used", "bytes", double(used), &source);
        sheet.gauge("used_percent", "percent", percent(double(used), double(total)), &source);
    }
}

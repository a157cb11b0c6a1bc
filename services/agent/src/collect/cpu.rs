//! `System.CPU`.

use super::sheet::Sheet;
use crate::procfs::cpu::{Processor, Stat, physical_cores};
use crate::procfs::double;

pub fn fill(
    sheet: &mut Sheet,
    earlier: &Stat,
    stat: &Stat,
    load: [f64; 3],
    processors: &[Processor],
    ticks_per_second: u64,
) {
    usage(sheet, earlier, stat);
    times(sheet, stat, ticks_per_second);
    for (name, load) in ["load_avg_1", "load_avg_5", "load_avg_15"].into_iter().zip(load) {
        sheet.gauge(name, "load", load, &[]);
    }
    sheet.gauge("count_logical", "count", double(stat.cores.len() as u64), &[]);
    sheet.gauge("count_physical", "count", double(physical_cores(processors) as u64), &[]);
    clocks(sheet, processors);
}

fn usage(sheet: &mut Sheet, earlier: &Stat, stat: &Stat) {
    let total = stat.total.usage_since(&earlier.total);
    sheet.gauge("usage_percent", "percent", total, &[("scope", "total")]);
    for (number, core) in &stat.cores {
        // A core that was just brought online has no earlier reading and waits for the next.
        let Some(before) = earlier.cores.get(number) else { continue };
        let name = format!("core{number}");
        sheet.gauge("usage_percent", "percent", core.usage_since(before), &[("scope", "per_core"), ("core", &name)]);
    }
}

fn times(sheet: &mut Sheet, stat: &Stat, ticks_per_second: u64) {
    let total = &stat.total;
    let states = [
        ("time_user", total.user),
        ("time_system", total.system),
        ("time_idle", total.idle),
        ("time_nice", total.nice),
        ("time_iowait", total.iowait),
        ("time_irq", total.irq),
        ("time_softirq", total.softirq),
        ("time_steal", total.steal),
        ("time_guest", total.guest),
        ("time_guest_nice", total.guest_nice),
    ];
    for (name, ticks) in states {
        sheet.counter(name, "seconds", double(ticks) / double(ticks_per_second), &[("scope", "total")]);
    }
}

fn clocks(sheet: &mut Sheet, processors: &[Processor]) {
    for processor in processors {
        let Some(mhz) = processor.mhz else { continue };
        let core = format!("core{}", processor.number);
        let attributes = [
            ("cache", processor.cache.as_str()),
            ("core", &core),
            ("family", &processor.family),
            ("model", &processor.model),
            ("physical", &processor.physical_id),
            ("stepping", &processor.stepping),
            ("vendor", &processor.vendor),
        ];
        sheet.gauge("clock_mhz", "MHz", mhz, &attributes);
    }
}

//! `/proc/meminfo`.

use super::Malformed;

/// All in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub available: u64,
    /// What is neither free nor a cache that the kernel gives back when asked.
    pub used: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

pub fn memory(text: &str) -> Result<Memory, Malformed> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let required = |key, field| bytes(key).ok_or(Malformed { file: "/proc/meminfo", field });
    let total = required("MemTotal", "MemTotal")?;
    let free = required("MemFree", "MemFree")?;
    let reclaimable = ["Buffers", "Cached", "SReclaimable"].into_iter().filter_map(bytes).sum::<u64>();
    Ok(Memory {
        total,
        // Kernels before 3.14 do not say it.
        available: bytes("MemAvailable").unwrap_or(free.saturating_add(reclaimable)).min(total),
        used: total.saturating_sub(free).saturating_sub(reclaimable),
        swap_total: bytes("SwapTotal").unwrap_or(0),
        swap_free: bytes("SwapFree").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = include_str!("../../tests/fixtures/meminfo.txt");

    #[test]
    fn total_is_memtotal_in_bytes() {
        let kibibytes: u64 = MEMINFO.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        let memory = memory(MEMINFO).unwrap();
        assert_eq!(memory.total, kibibytes * 1024);
        assert!(memory.used > 0 && memory.used < memory.total && memory.available < memory.total);
    }

    #[test]
    fn swap_cached_is_not_taken_for_cached() {
        let text =
            "MemTotal: 100 kB\nMemFree: 20 kB\nSwapCached: 50 kB\nCached: 30 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
        let memory = memory(text).unwrap();
        assert_eq!((memory.used, memory.available), (50 * 1024, 50 * 1024));
        assert_eq!((memory.swap_total, memory.swap_free), (10 * 1024, 4 * 1024));
    }

    #[test]
    fn text_without_memtotal_is_malformed() {
        assert!(memory("MemFree: 20 kB\n").is_err());
    }
}

//! `/proc/self/mountinfo`, `/proc/filesystems` and `/proc/diskstats`.

use std::collections::BTreeSet;

use super::{Malformed, number};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub device: String,
    pub fstype: String,
    pub mountpoint: String,
}

/// File systems whose size never changes and that are full by nature; they would only raise false alarms.
const READ_ONLY_IMAGES: [&str; 4] = ["squashfs", "iso9660", "erofs", "udf"];

/// The mounted file systems that hold data on a local disk, each once.
///
/// Which types those are, `/proc/filesystems` says: those without `nodev`. That leaves network file systems out on
/// purpose: asking a dead NFS server for
/// its size blocks. A container's root is an overlay and zfs calls itself `nodev`; both hold data. Of bind mounts of
/// one file system only the one that was mounted first counts.
pub fn data_mounts(mountinfo: &str, filesystems: &str) -> Vec<Mount> {
    let on_disk: BTreeSet<&str> =
        filesystems.lines().filter(|line| !line.starts_with("nodev")).map(str::trim).collect();
    let mut seen = BTreeSet::new();
    let mut mounts = Vec::new();
    for (number, mount) in mountinfo.lines().filter_map(mount) {
        let fstype = mount.fstype.as_str();
        let holds_data =
            on_disk.contains(fstype) || fstype == "zfs" || (fstype == "overlay" && mount.mountpoint == "/");
        if holds_data && !READ_ONLY_IMAGES.contains(&fstype) && seen.insert(number) {
            mounts.push(mount);
        }
    }
    mounts
}

/// `36 35 98:0 /root /mountpoint options [tags...] - fstype source options`, see proc(5).
fn mount(line: &str) -> Option<(&str, Mount)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let number = left.nth(2)?;
    let mountpoint = left.nth(1)?;
    let mut right = right.split(' ');
    let fstype = right.next()?;
    let device = right.next()?;
    Some((number, Mount { device: unescape(device), fstype: fstype.to_owned(), mountpoint: unescape(mountpoint) }))
}

/// The kernel writes blank, tab, newline and backslash in names as three octal digits.
fn unescape(name: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(name.to_owned(), |name, (code, text)| name.replace(code, text))
}

/// Totals since boot of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceActivity {
    pub device: String,
    pub read_count: u64,
    pub merged_read_count: u64,
    pub read_bytes: u64,
    pub read_milliseconds: u64,
    pub write_count: u64,
    pub merged_write_count: u64,
    pub write_bytes: u64,
    pub write_milliseconds: u64,
    pub io_milliseconds: u64,
    pub weighted_milliseconds: u64,
}

/// A sector in `/proc/diskstats` is 512 bytes whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// Devices that have done something since boot: a machine lists loop and ram devices by the dozen that never do.
pub fn device_activity(text: &str) -> Result<Vec<DeviceActivity>, Malformed> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let Some(name) = fields.next() else { continue };
        let mut next = |field| number(&mut fields, "/proc/diskstats", field);
        let read_count = next("reads")?;
        let merged_read_count = next("merged reads")?;
        let read_bytes = next("sectors read")?.saturating_mul(SECTOR_BYTES);
        let read_milliseconds = next("read time")?;
        let write_count = next("writes")?;
        let merged_write_count = next("merged writes")?;
        let write_bytes = next("sectors written")?.saturating_mul(SECTOR_BYTES);
        let write_milliseconds = next("write time")?;
        next("requests in flight")?;
        let io_milliseconds = next("time of activity")?;
        let weighted_milliseconds = next("weighted time")?;
        if read_count + write_count == 0 {
            continue;
        }
        devices.push(DeviceActivity {
            device: name.to_owned(),
            read_count,
            merged_read_count,
            read_bytes,
            read_milliseconds,
            write_count,
            merged_write_count,
            write_bytes,
            write_milliseconds,
            io_milliseconds,
            weighted_milliseconds,
        });
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = include_str!("../../tests/fixtures/mountinfo.txt");
    const FILESYSTEMS: &str = include_str!("../../tests/fixtures/filesystems.txt");
    const DISKSTATS: &str = include_str!("../../tests/fixtures/diskstats.txt");

    #[test]
    fn only_file_systems_that_hold_data_are_measured() {
        let mounts = data_mounts(MOUNTINFO, FILESYSTEMS);
        assert_eq!(mounts, [Mount { device: "/dev/vda".into(), fstype: "ext4".into(), mountpoint: "/".into() }]);
    }

    #[test]
    fn bind_mounts_network_mounts_and_images_do_not_count() {
        let mountinfo = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:1 /srv /jail/srv rw shared:1 - ext4 /dev/sda1 rw
3 1 0:50 / /mnt/nas rw - nfs4 nas:/x rw
4 1 7:1 / /snap/core ro - squashfs /dev/loop1 ro
5 1 8:2 / /var/my\\040data rw shared:2 master:1 - xfs /dev/sda2 rw
6 1 0:60 / /var/lib/docker/overlay2/x rw - overlay overlay rw
";
        let filesystems = "nodev\tproc\n\text4\n\txfs\n\tsquashfs\nnodev\toverlay\n";
        let mountpoints: Vec<_> =
            data_mounts(mountinfo, filesystems).into_iter().map(|mount| mount.mountpoint).collect();
        assert_eq!(mountpoints, ["/", "/var/my data"]);
    }

    #[test]
    fn a_containers_overlay_root_counts() {
        let mounts = data_mounts("1 0 0:60 / / rw - overlay overlay rw\n", "nodev\toverlay\n");
        assert_eq!(mounts[0].fstype, "overlay");
    }

    #[test]
    fn idle_devices_are_left_out_and_sectors_become_bytes() {
        let devices = device_activity(DISKSTATS).unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].device, "vda");
        let fields: Vec<_> =
            DISKSTATS.lines().find(|line| line.contains("vda")).unwrap().split_ascii_whitespace().collect();
        assert_eq!(devices[0].read_bytes, fields[5].parse::<u64>().unwrap() * 512);
        assert_eq!(devices[0].weighted_milliseconds, fields[13].parse::<u64>().unwrap());
    }

    #[test]
    fn a_cut_line_is_malformed() {
        assert!(device_activity("8 0 sda 1 2 3\n").is_err());
    }
}

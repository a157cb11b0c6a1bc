//! `/proc/self/mountinfo`, `/proc/filesystems` and `/proc/diskstats`.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Malformed, number};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub device: String,
    pub fstype: String,
    pub mountpoint: String,
}

/// File systems whose size never changes and that are full by nature; they would only raise false alarms.
const READ_ONLY_IMAGES: [&str; 4] = ["squashfs", "iso9660", "erofs", "udf"];

/// Files that a container's runtime lays over those of its image, each a bind mount of a file on the host's disk.
const FILES_OF_A_CONTAINER: [&str; 4] = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/dev/termination-log"];

/// The mounted file systems that hold data on a local disk, each once.
///
/// Which types those are, `/proc/filesystems` says: those without `nodev`. That leaves network file systems out on
/// purpose: asking a dead NFS server for
/// its size blocks. A container's root is an overlay and zfs calls itself `nodev`; both hold data. Of bind mounts of
/// one file system only the one that was mounted first counts, and of btrfs, which numbers each subvolume, one a device.
pub fn data_mounts(mountinfo: &str, filesystems: &str) -> Vec<Mount> {
    let on_disk: BTreeSet<&str> =
        filesystems.lines().filter(|line| !line.starts_with("nodev")).map(str::trim).collect();
    let mut seen = BTreeSet::new();
    let mut mounts = Vec::new();
    for (number, mount) in mountinfo.lines().filter_map(mount) {
        let fstype = mount.fstype.as_str();
        let holds_data =
            on_disk.contains(fstype) || fstype == "zfs" || (fstype == "overlay" && mount.mountpoint == "/");
        let is_file = FILES_OF_A_CONTAINER.contains(&mount.mountpoint.as_str());
        if !holds_data || is_file || READ_ONLY_IMAGES.contains(&fstype) {
            continue;
        }
        let disk = if fstype == "btrfs" { mount.device.as_str() } else { number };
        if seen.insert(disk.to_owned()) {
            mounts.push(mount);
        }
    }
    mounts
}

/// The mounts below `root`, as they are called there.
pub fn under(mountinfo: &str, root: &Path) -> String {
    let line = |line: &str| {
        let point = line.split(' ').nth(4)?;
        let inside = Path::new(point).strip_prefix(root).ok()?.to_str()?;
        let fields: Vec<&str> = line.split(' ').collect();
        Some(format!("{} /{inside} {}\n", fields[..4].join(" "), fields[5..].join(" ")))
    };
    mountinfo.lines().filter_map(line).collect()
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
    fn files_that_a_container_is_given_are_no_disks_and_its_volumes_are() {
        let mountinfo = "\
1 0 0:60 / / rw - overlay overlay rw
2 1 8:1 /docker/containers/x/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw
3 1 8:1 /docker/containers/x/hostname /etc/hostname rw - ext4 /dev/sda1 rw
4 1 8:17 /volumes/d/_data /data rw - ext4 /dev/sdb1 rw
5 1 8:1 /docker/volumes/e/_data /cache rw - ext4 /dev/sda1 rw
";
        let mounts = data_mounts(mountinfo, "nodev\toverlay\n\text4\n");
        let found: Vec<_> = mounts.iter().map(|mount| (mount.mountpoint.as_str(), mount.device.as_str())).collect();
        assert_eq!(found, [("/", "overlay"), ("/data", "/dev/sdb1"), ("/cache", "/dev/sda1")]);
    }

    #[test]
    fn subvolumes_of_one_btrfs_are_one_disk() {
        let mountinfo = "\
1 0 0:32 /@ / rw - btrfs /dev/sda2 rw,subvol=/@
2 1 0:33 /@home /home rw - btrfs /dev/sda2 rw,subvol=/@home
3 1 0:40 / /srv rw - btrfs /dev/sdb1 rw
";
        let points: Vec<_> = data_mounts(mountinfo, "\tbtrfs\n").into_iter().map(|mount| mount.mountpoint).collect();
        assert_eq!(points, ["/", "/srv"]);
    }

    #[test]
    fn mounts_below_a_root_are_called_as_they_are_there() {
        let mountinfo = "\
1 0 0:60 / / rw - overlay overlay rw
2 1 8:1 / /host ro - ext4 /dev/sda1 rw
3 1 8:17 / /host/srv ro shared:1 - xfs /dev/sdb1 rw
4 1 8:33 / /hostage ro - ext4 /dev/sdc1 rw
";
        let mounts = data_mounts(&under(mountinfo, Path::new("/host")), "\text4\n\txfs\nnodev\toverlay\n");
        let points: Vec<_> = mounts.iter().map(|mount| mount.mountpoint.as_str()).collect();
        assert_eq!(points, ["/", "/srv"]);
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

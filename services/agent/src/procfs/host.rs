//! `os-release`, `/proc/uptime`, `utmp` and what firmware says about virtualization.

use super::Malformed;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `debian`, `fedora`, ...
    pub id: String,
    /// The first of the distributions it derives from, else its own id.
    pub family: String,
    /// `12`; rolling distributions have none.
    pub version_id: String,
}

pub fn os_release(text: &str) -> OsRelease {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    let id = value("ID");
    let family = value("ID_LIKE").split(' ').next().unwrap_or_default().to_owned();
    OsRelease { family: if family.is_empty() { id.clone() } else { family }, id, version_id: value("VERSION_ID") }
}

/// Seconds since boot.
pub fn uptime(text: &str) -> Result<f64, Malformed> {
    text.split_ascii_whitespace()
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .ok_or(Malformed { file: "/proc/uptime", field: "uptime" })
}

/// Size of glibc's `struct utmp`, the same on every 64-bit and 32-bit Linux since time_t there stayed 32 bits wide.
const UTMP_RECORD_BYTES: usize = 384;
const USER_PROCESS: i16 = 7;

/// Number of login sessions recorded in an utmp file.
pub fn logged_in_users(utmp: &[u8]) -> usize {
    utmp.chunks_exact(UTMP_RECORD_BYTES)
        .filter(|record| i16::from_ne_bytes([record[0], record[1]]) == USER_PROCESS)
        .count()
}

/// The virtualization product that a machine's DMI vendor and product names give away.
pub fn virtualization(vendor: &str, product: &str, hypervisor_flag: bool) -> Option<&'static str> {
    let known = [
        ("QEMU", "kvm"),
        ("KVM", "kvm"),
        ("Amazon EC2", "kvm"),
        ("Google", "kvm"),
        ("VMware", "vmware"),
        ("VirtualBox", "vbox"),
        ("innotek", "vbox"),
        ("Microsoft Corporation", "hyperv"),
        ("Xen", "xen"),
        ("Parallels", "parallels"),
    ];
    known
        .into_iter()
        .find(|(mark, _)| hypervisor_flag && (vendor.contains(mark) || product.contains(mark)))
        .map(|(_, system)| system)
        .or(hypervisor_flag.then_some("vm"))
}

/// The account name of a user id in an `/etc/passwd` file.
pub fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_of_debian_and_of_a_derivative() {
        let debian = os_release("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n");
        assert_eq!(
            (debian.id.as_str(), debian.family.as_str(), debian.version_id.as_str()),
            ("debian", "debian", "12")
        );
        let rocky = os_release("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID='9.4'\n");
        assert_eq!((rocky.family.as_str(), rocky.version_id.as_str()), ("rhel", "9.4"));
    }

    #[test]
    fn only_user_sessions_count_as_logged_in() {
        let mut utmp = vec![0; UTMP_RECORD_BYTES * 3 + 10];
        utmp[UTMP_RECORD_BYTES..UTMP_RECORD_BYTES + 2].copy_from_slice(&USER_PROCESS.to_ne_bytes());
        utmp[2 * UTMP_RECORD_BYTES] = 2;
        assert_eq!(logged_in_users(&utmp), 1);
        assert_eq!(logged_in_users(&[]), 0);
    }

    #[test]
    fn virtualization_needs_the_processors_word_for_it() {
        assert_eq!(virtualization("QEMU", "Standard PC", true), Some("kvm"));
        assert_eq!(virtualization("Google", "Chromebook", false), None);
        assert_eq!(virtualization("", "", true), Some("vm"));
    }

    #[test]
    fn a_user_id_has_its_name_from_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n";
        assert_eq!(user_name(passwd, 33), Some("www-data"));
        assert_eq!(user_name(passwd, 34), None);
    }

    #[test]
    fn uptime_is_the_first_field() {
        assert_eq!(uptime("1447.24 2655.03\n"), Ok(1447.24));
        assert!(uptime("").is_err());
    }
}

//! Where the host's file system is seen from here: `/`, or the folder where a container has it mounted.
//!
//! All paths in the agent are the host's; only what opens a file goes through here.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

/// Links behind links, as the kernel counts them before it gives up.
const MOST_LINKS: usize = 40;

impl HostRoot {
    pub fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Whether the agent sees the host as its own file system.
    pub fn is_own(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// A file of the host that is reached without links.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// A file of the host whose path may have links in it: the kernel would follow an absolute one out of the root, into
    /// the container's own files.
    ///
    /// # Errors
    /// A link cannot be read, or they go round in a circle. A path that leads nowhere is no error here.
    pub fn resolve(&self, absolute: &Path) -> io::Result<PathBuf> {
        if self.is_own() {
            return Ok(absolute.to_owned());
        }
        let mut ahead: Vec<_> = parts(absolute).collect();
        ahead.reverse();
        let mut resolved = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            if part == ".." {
                resolved.pop();
                continue;
            }
            let step = resolved.join(&part);
            match fs::read_link(self.path(&step)) {
                Ok(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(io::Error::from(rustix::io::Errno::LOOP));
                    }
                    if target.is_absolute() {
                        resolved = PathBuf::from("/");
                    }
                    let behind: Vec<_> = parts(&target).collect();
                    ahead.extend(behind.into_iter().rev());
                }
                // Not a link, or nothing there.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                    resolved = step;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.path(resolved))
    }

    /// The text of a file of the host.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, absolute: &str) -> anyhow::Result<String> {
        // The kernel's files are thousands, and have no links in them that lead out.
        let place =
            if absolute.starts_with("/proc/") { Ok(self.path(absolute)) } else { self.resolve(absolute.as_ref()) };
        place.and_then(fs::read_to_string).with_context(|| format!("read {absolute}"))
    }

    /// What `/proc/self` would say on the host: in a container `self` is the container's, and process 1 is the host's.
    /// Where process 1 may not be looked into, the container's own view is what there is.
    ///
    /// # Errors
    /// Neither can be read.
    pub fn read_of_host(&self, file: &str) -> anyhow::Result<String> {
        if !self.is_own()
            && let Ok(text) = self.read(&format!("/proc/1/{file}"))
        {
            return Ok(text);
        }
        self.read(&format!("/proc/self/{file}"))
    }
}

fn parts(path: &Path) -> impl Iterator<Item = std::ffi::OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_hosts_own_paths_stay_as_they_are() {
        let root = HostRoot::new(Path::new("/"));
        assert_eq!(root.path("/proc/stat"), Path::new("/proc/stat"));
        assert_eq!(root.resolve(Path::new("/var/log/x")).unwrap(), Path::new("/var/log/x"));
    }

    #[test]
    fn absolute_links_of_the_host_stay_inside_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("var/log/pods/a")).unwrap();
        fs::create_dir_all(at("var/log/containers")).unwrap();
        fs::write(at("var/log/pods/a/0.log"), "x").unwrap();
        symlink("/var/log/pods/a/0.log", at("var/log/containers/a.log")).unwrap();
        symlink("../../..", at("var/log/up")).unwrap();
        symlink("/var/round", at("var/round")).unwrap();
        let root = HostRoot::new(folder.path());
        let resolve = |path: &str| root.resolve(Path::new(path));
        assert_eq!(resolve("/var/log/containers/a.log").unwrap(), at("var/log/pods/a/0.log"));
        assert_eq!(resolve("/var/log/up/var/log/pods").unwrap(), at("var/log/pods"));
        assert_eq!(resolve("/var/log/nowhere").unwrap(), at("var/log/nowhere"));
        assert!(resolve("/var/round").is_err());
    }

    #[test]
    fn process_one_speaks_for_the_host_where_it_may_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("proc/self")).unwrap();
        fs::write(folder.path().join("proc/self/mountinfo"), "container").unwrap();
        let root = HostRoot::new(folder.path());
        assert_eq!(root.read_of_host("mountinfo").unwrap(), "container");
        fs::create_dir_all(folder.path().join("proc/1")).unwrap();
        fs::write(folder.path().join("proc/1/mountinfo"), "host").unwrap();
        assert_eq!(root.read_of_host("mountinfo").unwrap(), "host");
    }
}

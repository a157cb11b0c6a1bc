//! Reads this host's metrics. What cannot be read is left out and reported; the rest goes on.

mod cpu;
pub mod disk;
mod host;
mod memory;
mod network;
mod sheet;
mod space;

use std::sync::Arc;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use prost::Message as _;

use crate::clock;
use crate::host_root::HostRoot;
use crate::identity::Identity;
use crate::procfs;
use sheet::{Moment, Sheet};
use space::Space;

/// A group of metrics that is read together and fails together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Cpu,
    Memory,
    Disk,
    DiskIo,
    Network,
    Host,
}

impl Source {
    const ALL: [Self; 6] = [Self::Cpu, Self::Memory, Self::Disk, Self::DiskIo, Self::Network, Self::Host];

    /// The OTLP scope, as GoSight's agents call it.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Cpu => "System.CPU",
            Self::Memory => "System.Memory",
            Self::Disk => "System.Disk",
            Self::DiskIo => "System.DiskIO",
            Self::Network => "System.Network",
            Self::Host => "System.Host",
        }
    }
}

/// What one round of collecting gave.
pub struct Collection {
    pub request: ExportMetricsServiceRequest,
    pub failures: Vec<(Source, anyhow::Error)>,
}

/// Gateways take 4 MiB and more. A host with thousands of interfaces or disks has that much to say.
pub const REQUEST_BYTES: usize = 1 << 20;

impl Collection {
    pub fn points(&self) -> usize {
        self.request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics).map(points).sum()
    }

    /// As requests of bounded size, each with the number of its points. A metric is not divided.
    pub fn requests(self, most_bytes: usize) -> Vec<(usize, Vec<u8>)> {
        if self.request.encoded_len() <= most_bytes {
            return vec![(self.points(), self.request.encode_to_vec())];
        }
        let mut requests = Vec::new();
        for ResourceMetrics { resource, scope_metrics, schema_url } in self.request.resource_metrics {
            for ScopeMetrics { scope, metrics, schema_url: scope_schema_url } in scope_metrics {
                for metrics in parts(metrics, most_bytes) {
                    let scope = ScopeMetrics { scope: scope.clone(), metrics, schema_url: scope_schema_url.clone() };
                    let points = points(&scope);
                    let resource = ResourceMetrics {
                        resource: resource.clone(),
                        scope_metrics: vec![scope],
                        schema_url: schema_url.clone(),
                    };
                    let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
                    requests.push((points, request.encode_to_vec()));
                }
            }
        }
        requests
    }
}

fn parts(metrics: Vec<Metric>, most_bytes: usize) -> Vec<Vec<Metric>> {
    let mut parts: Vec<Vec<Metric>> = Vec::new();
    let mut bytes = 0;
    for metric in metrics {
        let length = metric.encoded_len();
        match parts.last_mut() {
            Some(part) if bytes + length <= most_bytes => part.push(metric),
            _ => {
                parts.push(vec![metric]);
                bytes = 0;
            }
        }
        bytes += length;
    }
    parts
}

pub struct Collector {
    identity: Arc<Identity>,
    root: HostRoot,
    space: Space,
    /// Of agent start: the kernel recomputes it from the wall clock, and a counter's start must not wander.
    boot_unix_nanos: u64,
    /// Usage is what happened between two readings.
    earlier: procfs::cpu::Stat,
}

impl Collector {
    /// Takes the first reading of the processors, which the first collection is compared with.
    ///
    /// # Errors
    /// `/proc/stat` cannot be read: this is no Linux host, or `/proc` is not mounted.
    pub fn new(identity: Arc<Identity>, root: HostRoot) -> anyhow::Result<Self> {
        let earlier = procfs::cpu::stat(&root.read("/proc/stat")?)?;
        let boot_unix_nanos = earlier.boot_time_unix_seconds.saturating_mul(1_000_000_000);
        Ok(Self { identity, root, space: Space::default(), boot_unix_nanos, earlier })
    }

    pub fn collect(&mut self) -> Collection {
        let moment = Moment { now: clock::unix_nanos(), boot: self.boot_unix_nanos };
        let mut scope_metrics = Vec::new();
        let mut failures = Vec::new();
        for source in Source::ALL {
            let mut sheet = Sheet::new(source.scope(), moment);
            if let Err(error) = self.fill(source, &mut sheet) {
                failures.push((source, error));
            }
            let scope = sheet.finish();
            if !scope.metrics.is_empty() {
                scope_metrics.push(scope);
            }
        }
        let resource = Some(self.identity.resource());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, schema_url: String::new() }];
        Collection { request: ExportMetricsServiceRequest { resource_metrics }, failures }
    }

    fn fill(&mut self, source: Source, sheet: &mut Sheet) -> anyhow::Result<()> {
        match source {
            Source::Cpu => self.cpu(sheet),
            Source::Memory => {
                memory::fill(sheet, &procfs::memory::memory(&self.root.read("/proc/meminfo")?)?);
                Ok(())
            }
            Source::Disk => self.space.fill(sheet, &self.root),
            Source::DiskIo => {
                let devices = procfs::disk::device_activity(&self.root.read("/proc/diskstats")?)?;
                devices.iter().for_each(|device| disk::fill_activity(sheet, device));
                Ok(())
            }
            Source::Network => {
                let interfaces = procfs::network::traffic(&self.root.read_of_host("net/dev")?)?;
                interfaces.iter().for_each(|interface| network::fill(sheet, interface));
                Ok(())
            }
            Source::Host => self.host(sheet),
        }
    }

    fn cpu(&mut self, sheet: &mut Sheet) -> anyhow::Result<()> {
        let stat = procfs::cpu::stat(&self.root.read("/proc/stat")?)?;
        let load = procfs::cpu::load_averages(&self.root.read("/proc/loadavg")?)?;
        let processors = procfs::cpu::processors(&self.root.read("/proc/cpuinfo")?);
        cpu::fill(sheet, &self.earlier, &stat, load, &processors, rustix::param::clock_ticks_per_second());
        self.earlier = stat;
        Ok(())
    }

    fn host(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        let uptime = procfs::host::uptime(&self.root.read("/proc/uptime")?)?;
        // A container has no utmp, and then nobody is logged in.
        let users = std::fs::read(self.root.path("/run/utmp")).map_or(0, |utmp| procfs::host::logged_in_users(&utmp));
        host::fill(sheet, process_ids(&self.root)?.len(), users, uptime, &self.identity);
        Ok(())
    }
}

fn points(scope: &ScopeMetrics) -> usize {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let points = |data: &Data| match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        _ => 0,
    };
    scope.metrics.iter().filter_map(|metric| metric.data.as_ref()).map(points).sum()
}

/// Ids of all processes that are visible in `/proc`.
pub fn process_ids(root: &HostRoot) -> anyhow::Result<Vec<i32>> {
    let entries = std::fs::read_dir(root.path("/proc")).context("list /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests;

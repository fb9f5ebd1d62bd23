//! Which clusters there are, and at which of them a gateway should be. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::collect::gateway_list::GatewayList;
use crate::error::{FetchError, Reason};
use crate::model::Gateway;
use crate::things_stack::{BaseUrl, KnownHosts};

/// How many clusters the registrations may add to those that belong to `--server`.
const NAMED_CLUSTERS_MAX: usize = 8;

pub type Cluster = Arc<BaseUrl>;

/// Where a gateway should be by its registration.
pub struct Home {
    /// That of `--server` where no cluster is named, or one that the key must not be sent to.
    pub cluster: Cluster,
    /// The host as it is shown.
    pub host: Arc<str>,
    /// Why it may be at a cluster that cannot be asked: the key must not be sent to `host`, or the
    /// registration is not known yet.
    pub error: Option<Arc<FetchError>>,
}

pub struct Clusters {
    pub server: Cluster,
    hosts: KnownHosts,
    /// Where a gateway may be, whatever its registration says: the clusters that belong to
    /// `--server` or were allowed, and some that registrations name.
    pub candidates: Vec<Cluster>,
}

impl Home {
    pub fn of(cluster: Cluster) -> Home {
        Home {
            host: cluster.host.as_str().into(),
            cluster,
            error: None,
        }
    }
}

impl Clusters {
    pub fn new(server: BaseUrl, hosts: KnownHosts) -> Clusters {
        Clusters {
            server: Arc::new(server),
            hosts,
            candidates: Vec::new(),
        }
    }

    /// Takes over the list, and gives each gateway its home.
    pub fn set_gateways(&mut self, list: &GatewayList) -> Vec<(Arc<Gateway>, Arc<Home>)> {
        // Most gateways share a handful of addresses.
        let mut homes: BTreeMap<&str, Arc<Home>> = BTreeMap::new();
        let mut with_homes = Vec::with_capacity(list.gateways.len());
        for gateway in list.gateways.values() {
            let address = gateway.gateway_server_address.as_str();
            let home = homes
                .entry(address)
                .or_insert_with(|| Arc::new(self.home(address)));
            let home = match list.error_of_registration(&gateway.gateway_id) {
                Some(error) => Arc::new(Home {
                    error: Some(error.clone()),
                    ..Home::of(self.server.clone())
                }),
                None => home.clone(),
            };
            with_homes.push((gateway.clone(), home));
        }
        let named = homes.values().map(|home| home.cluster.clone());
        self.candidates = candidates(self.hosts.candidates(), named);
        with_homes
    }

    fn home(&self, address: &str) -> Home {
        match self.hosts.api_of(address) {
            Ok(base) => Home::of(Arc::new(base)),
            Err(host) if KnownHosts::names_host(address) => Home {
                cluster: self.server.clone(),
                error: Some(unknown_host(&host)),
                host: host.into(),
            },
            Err(_) => Home::of(self.server.clone()),
        }
    }
}

fn candidates(known: Vec<BaseUrl>, named: impl Iterator<Item = Cluster>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = known.into_iter().map(Arc::new).collect();
    let most = clusters.len() + NAMED_CLUSTERS_MAX;
    for cluster in named {
        if clusters.len() < most && !clusters.contains(&cluster) {
            clusters.push(cluster);
        }
    }
    clusters
}

fn unknown_host(host: &str) -> Arc<FetchError> {
    let context = format!(
        "the gateway's server address names {host}, and the API key is not sent there: \
         --allow-host {host} would allow it"
    );
    Arc::new(FetchError::new(Reason::UnknownHost, context).of_gateway())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::cluster;

    #[test]
    fn registrations_add_a_few_clusters_and_no_more() {
        let named: Vec<_> = (0..50).map(|n| cluster(&format!("c{n}"))).collect();
        let known = vec![BaseUrl::clone(&cluster("eu1"))];
        let all = candidates(known, named.into_iter().chain([cluster("eu1")]));
        assert_eq!(all.len(), 1 + NAMED_CLUSTERS_MAX);
    }
}

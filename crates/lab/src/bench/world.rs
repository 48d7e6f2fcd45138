//! One node and the API server it is told by: everything an agent needs to start, and nothing of an earlier part.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Error, Lab, io, objects};
use crate::api_server::{ApiServer, Config, Faults, Handle, Resource};
use crate::node::Namespace;

/// A node with an API server on its loopback.
pub(super) struct World {
    pub(super) namespace: Arc<Namespace>,
    pub(super) address: SocketAddr,
    pub(super) services: usize,
    server: ApiServer,
}

impl World {
    /// A node by itself, with `services` Services of `endpoints` endpoints.
    pub(super) fn new(lab: &Lab<'_>, services: usize, endpoints: usize) -> Result<World, Error> {
        let world = World::around(lab, bare_node()?, objects::NODE_ADDRESS.into(), "10.244.1.0/24")?;
        world.fill(services, endpoints)
    }

    /// A node that is there already, with `address` and pods in `pods`, and nothing in its cluster yet.
    pub(super) fn around(
        lab: &Lab<'_>,
        namespace: Arc<Namespace>,
        address: IpAddr,
        pods: &str,
    ) -> Result<World, Error> {
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0"))?;
        let listener = listener.map_err(io("listening for the API server"))?;
        // Objects are stored as they come: a control plane would take its time for each.
        let config = Config { control_plane: None, listeners: vec![listener], ..Config::default() };
        let server = lab.runtime.block_on(ApiServer::start(config))?;
        let bound = server.addresses().first().copied();
        let bound = bound.ok_or_else(|| Error::Wrong("the API server listens nowhere".to_owned()))?;
        server.handle().create(Resource::Nodes, objects::node(address, pods))?;
        Ok(World { namespace, address: bound, services: 0, server })
    }

    /// Adds Services with their slices, and has the server write every object's JSON once: that is the server's
    /// work, not the agent's.
    pub(super) fn fill(mut self, services: usize, endpoints: usize) -> Result<World, Error> {
        let handle = self.handle();
        for index in 0..services {
            handle.create(Resource::Services, objects::service(index))?;
            let slice = objects::slice(index, objects::endpoints(index, endpoints));
            handle.create(Resource::EndpointSlices, slice)?;
        }
        self.services = services;
        for path in ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"] {
            get(&self.namespace, self.address, path)?;
        }
        self.faults().reset_requests();
        Ok(self)
    }

    pub(super) fn handle(&self) -> Handle {
        self.server.handle()
    }

    pub(super) fn faults(&self) -> Faults {
        self.server.faults()
    }
}

/// A namespace with the node's address on a link that leads nowhere.
pub(super) fn bare_node() -> Result<Arc<Namespace>, Error> {
    let namespace = Namespace::machine(objects::NODE)?;
    namespace.ip(&format!(
        "link add eth0 type dummy\naddr add {}/24 dev eth0\nlink set eth0 up\n",
        objects::NODE_ADDRESS
    ))?;
    Ok(Arc::new(namespace))
}

/// One HTTP GET from inside: status and body.
pub(super) fn get(namespace: &Namespace, to: SocketAddr, path: &str) -> Result<(u16, String), Error> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let exchange = move || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let doing = format!("asking {to}{path}");
    let answer = namespace.run(exchange)?.map_err(io(doing.clone()))?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| Error::Wrong(format!("{doing}: not HTTP")))?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// Waits until `done` says something, looking every `every`.
pub(super) fn wait_for<T>(
    what: &str,
    limit: Duration,
    every: Duration,
    mut done: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        if let Some(outcome) = done()? {
            return Ok(outcome);
        }
        if start.elapsed() > limit {
            return Err(Error::TooLate {
                what: what.to_owned(),
                seconds: limit.as_secs(),
                said: String::new(),
            });
        }
        std::thread::sleep(every);
    }
}

//! A server that is away and comes back, seen from a plain socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, too"
)]

use std::time::Duration;

use lab::api_server::{ApiServer, Availability, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(10);

async fn version(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    timeout(BOUND, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_refuses_and_is_back_at_the_same_address() {
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        ..Config::default()
    };
    let server = ApiServer::start(config).await.unwrap();
    let addresses = server.addresses();
    for round in 0..20 {
        assert_eq!(server.addresses(), addresses);
        for &address in &addresses {
            assert!(version(address).await.unwrap().contains("200 OK"), "round {round}");
        }
        let mut open = TcpStream::connect(addresses[0]).await.unwrap();
        open.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(open.read(&mut [0; 4096]).await.unwrap() > 0);
        server.faults().set_availability(Availability::Refusing);
        for &address in &addresses {
            let refused = TcpStream::connect(address).await.map(drop).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        let cut = timeout(BOUND, open.read(&mut [0; 4096])).await.expect("the open connection is cut");
        assert!(cut.is_err() || cut.is_ok_and(|length| length == 0));
        server.faults().set_availability(Availability::Serving);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_away_is_no_different() {
    let config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
    let server = ApiServer::start(config).await.unwrap();
    let address = server.addresses()[0];
    for _ in 0..100 {
        server.faults().set_availability(Availability::Refusing);
        server.faults().set_availability(Availability::Serving);
        assert!(version(address).await.unwrap().contains("200 OK"));
    }
}

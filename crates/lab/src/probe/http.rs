//! One HTTP request, for what answers HTTP only: an agent's `/readyz`, a healthCheckNodePort.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::client::{Asker, Failure};
use super::socket::Connected;

/// Status code and body of `GET path`.
pub(super) async fn get(asker: Asker, path: &str) -> Result<(u16, String), Failure> {
    let work = async {
        let Connected::Stream(mut stream) = asker.connect().await? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", asker.to);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        parse(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    Ok(timeout(asker.limit, work).await.map_err(|_| Failure::Timeout)??)
}

/// Status line and body of RFC 9112 section 2.1; the server was asked not to use chunks (HTTP/1.0).
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(parse(answer), Some((503, "no".to_owned())));
        assert_eq!(parse("HTTP/1.1 2"), None);
    }
}

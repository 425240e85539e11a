//! `query`: a small `dig`, for machines that have none.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde::Serialize;
use shared::io::clock;
use shared::prefix::Prefix;

use super::{DONE, FAILED, Global, Output, fail, nodes, print, print_json};
use crate::name::Name;
use crate::present::{Presented, present};
use crate::rtype;
use crate::wire::write_query;

/// Tries over UDP, each with this time-out.
const TRIES: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name to ask for
    #[arg(value_parser = Name::parse_absolute)]
    name: Name,
    /// Record type
    #[arg(default_value = "A", value_parser = super::explain::parse_type)]
    rtype: u16,
    /// Server [default: the first nameserver of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: Option<SocketAddr>,
    /// Client subnet to send along
    #[arg(long, value_name = "NET")]
    subnet: Option<Prefix>,
    /// Over TCP from the beginning
    #[arg(long)]
    tcp: bool,
    /// Print the answer's data only, a line for each record
    #[arg(long)]
    short: bool,
}

#[derive(Serialize)]
struct Asked {
    server: SocketAddr,
    proto: &'static str,
    bytes: usize,
    millis: f64,
    #[serde(flatten)]
    answer: Presented,
}

pub(super) fn run(global: &Global, args: &Args) -> u8 {
    let server = match server(global, args) {
        Ok(server) => server,
        Err(code) => return code,
    };
    match ask(server, args) {
        Ok(asked) => {
            match (global.output, args.short) {
                (Output::Json, _) => print_json(&asked),
                (Output::Table, true) => print(&short(&asked)),
                (Output::Table, false) => print(&long(args, &asked)),
            }
            DONE
        }
        Err(why) => fail(&format!("{server}: {why}"), FAILED),
    }
}

fn server(global: &Global, args: &Args) -> Result<SocketAddr, u8> {
    if let Some(server) = args.server {
        return Ok(server);
    }
    let nodes = nodes(global)?;
    let first = nodes.first().and_then(|(_, node)| node.listen.first());
    first.copied().ok_or_else(|| fail("say which server with --server ADDRESS:PORT", FAILED))
}

fn ask(server: SocketAddr, args: &Args) -> Result<Asked, String> {
    let [high, low, ..] = RandomState::new().hash_one(0).to_be_bytes();
    let packet = write_query(u16::from_be_bytes([high, low]), &args.name, args.rtype, args.subnet);
    let begun = clock::instant();
    let (mut proto, mut response) = match args.tcp {
        true => ("tcp", over_tcp(server, &packet)?),
        false => ("udp", over_udp(server, &packet)?),
    };
    let mut answer = present(&response)?;
    if proto == "udp" && answer.flags.iter().any(|flag| flag == "tc") {
        response = over_tcp(server, &packet)?;
        answer = present(&response)?;
        proto = "tcp";
    }
    let millis = begun.elapsed().as_secs_f64() * 1000.0;
    Ok(Asked { server, proto, bytes: response.len(), millis, answer })
}

fn over_udp(server: SocketAddr, packet: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| error.to_string();
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).map_err(text)?;
    socket.connect(server).map_err(text)?;
    let mut last = "no answer".to_owned();
    for _ in 0..TRIES {
        socket.send(packet).map_err(text)?;
        let deadline = clock::instant() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(clock::instant());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).map_err(text)?;
            let mut buffer = vec![0; 65_535];
            match socket.recv(&mut buffer) {
                // An answer to another question, or to nobody's, is not ours.
                Ok(length) if buffer.get(..2) == packet.get(..2) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Ok(_) => {}
                Err(error) => {
                    last = match error.kind() {
                        std::io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
                        _ => error.to_string(),
                    };
                    break;
                }
            }
        }
    }
    Err(last)
}

fn over_tcp(server: SocketAddr, packet: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    let length = u16::try_from(packet.len()).map_err(|error| error.to_string())?;
    let framed = [&length.to_be_bytes(), packet].concat();
    stream.write_all(&framed).map_err(text)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).map_err(text)?;
    let mut response = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut response).map_err(text)?;
    Ok(response)
}

/// The data of each record: what follows owner, TTL, class and type.
fn short(asked: &Asked) -> String {
    let data = asked.answer.answer.iter().map(|line| line.splitn(5, ' ').last().unwrap_or(line));
    data.map(|line| format!("{line}\n")).collect()
}

fn long(args: &Args, asked: &Asked) -> String {
    let answer = &asked.answer;
    let mut text = format!(
        ";; {} {} -> {}, id {}, flags: {}\n",
        args.name,
        rtype::Shown(args.rtype),
        answer.rcode,
        answer.id,
        answer.flags.join(" ")
    );
    if let Some(subnet) = &answer.subnet {
        text += &format!(
            ";; client subnet {}/{}, scope /{}\n",
            subnet.address, subnet.source_bits, subnet.scope_bits
        );
    }
    for (title, records) in [
        ("answer", &answer.answer),
        ("authority", &answer.authority),
        ("additional", &answer.additional),
    ] {
        if !records.is_empty() {
            text += &format!(";; {title}\n");
        }
        for record in records {
            text += &format!("{record}\n");
        }
    }
    text += &format!(
        ";; {} bytes from {} over {} in {:.2} ms\n",
        asked.bytes, asked.server, asked.proto, asked.millis
    );
    text
}

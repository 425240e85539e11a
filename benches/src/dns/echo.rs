//! The floor: a loop that makes the same system calls as a batching name server on a wildcard address, and nothing
//! else. Every query comes back with the QR bit set.
#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and IP_PKTINFO have no safe interface in std")]

use std::mem::{size_of, zeroed};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

const BATCH: usize = 32;
const BYTES: usize = 4096 + 64;
const CONTROL_BYTES: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Echoes until it is killed.
pub fn serve(address: SocketAddrV4) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(address)?;
    // As geodns has them.
    let options = [(libc::IP_PKTINFO, 1), (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)];
    for (name, value) in options {
        // SAFETY: the descriptor is open, and the option is an int of the length given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        anyhow::ensure!(result == 0, "setsockopt: {}", std::io::Error::last_os_error());
    }
    let mut buffers = vec![[0u8; BYTES]; BATCH];
    let mut controls = vec![Control([0; CONTROL_BYTES]); BATCH];
    // SAFETY: addresses of zeros are of no family.
    let mut names: Vec<libc::sockaddr_storage> = vec![unsafe { zeroed() }; BATCH];
    loop {
        // SAFETY: headers and vectors of zeros are valid.
        let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { zeroed() };
        for index in 0..BATCH {
            vectors[index].iov_base = buffers[index].as_mut_ptr().cast();
            vectors[index].iov_len = BYTES;
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_control = controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: every header points to buffers of the lengths given, which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count @ 1..) = usize::try_from(count) else { continue };
        for index in 0..count {
            vectors[index].iov_len = headers[index].msg_len as usize;
            buffers[index][2] |= 0x80;
            // The interface is the kernel's choice; only the address stays.
            let header = size_of::<libc::cmsghdr>();
            controls[index].0[header..header + 4].fill(0);
        }
        let mut sent = 0;
        while sent < count {
            let rest = &mut headers[sent..count];
            // SAFETY: as above.
            let result = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            sent += usize::try_from(result).unwrap_or(0).max(1);
        }
    }
}

//! The kernel's numbers for rtnetlink (`include/uapi/linux/{rtnetlink,if_link,if_addr,fib_rules}.h`), in the integer
//! types our attribute writer takes.

/// Message types.
pub(super) mod message {
    pub(crate) const NEW_LINK: u16 = 16;
    pub(crate) const DELETE_LINK: u16 = 17;
    pub(crate) const GET_LINK: u16 = 18;
    pub(crate) const SET_LINK: u16 = 19;
    pub(crate) const NEW_ADDRESS: u16 = 20;
    pub(crate) const DELETE_ADDRESS: u16 = 21;
    pub(crate) const GET_ADDRESS: u16 = 22;
    pub(crate) const NEW_ROUTE: u16 = 24;
    pub(crate) const DELETE_ROUTE: u16 = 25;
    pub(crate) const GET_ROUTE: u16 = 26;
    pub(crate) const NEW_RULE: u16 = 32;
    pub(crate) const DELETE_RULE: u16 = 33;
    pub(crate) const GET_RULE: u16 = 34;
}

/// `IFLA_*`
pub(super) mod link {
    /// Bytes of `struct ifinfomsg`.
    pub(crate) const HEADER: usize = 16;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const MTU: u16 = 4;
    pub(crate) const MASTER: u16 = 10;
    pub(crate) const PROTOCOL_INFO: u16 = 12;
    pub(crate) const INFO: u16 = 18;
    pub(crate) const EXTENSION_MASK: u16 = 29;
    /// Nested in [`INFO`].
    pub(crate) const INFO_KIND: u16 = 1;
    /// Nested in [`INFO`].
    pub(crate) const INFO_DATA: u16 = 2;
    /// Nested in [`INFO`].
    pub(crate) const INFO_PORT_KIND: u16 = 4;
    /// Nested in [`INFO`].
    pub(crate) const INFO_PORT_DATA: u16 = 5;
    /// `IFLA_BRPORT_MODE`: hairpin.
    pub(crate) const BRIDGE_PORT_MODE: u16 = 4;
    /// `RTEXT_FILTER_SKIP_STATS`
    pub(crate) const SKIP_STATISTICS: u32 = 8;
    /// `IFF_UP`
    pub(crate) const UP: u32 = 1;
    /// `AF_BRIDGE`
    pub(crate) const FAMILY_BRIDGE: u8 = 7;
}

/// `IFLA_IPTUN_*`, `TUNNEL_ENCAP_*` (`include/uapi/linux/if_tunnel.h`), `IP6_TNL_F_*` (`ip6_tunnel.h`)
pub(super) mod tunnel {
    pub(crate) const LOCAL: u16 = 2;
    pub(crate) const REMOTE: u16 = 3;
    pub(crate) const TTL: u16 = 4;
    pub(crate) const FLAGS: u16 = 8;
    pub(crate) const PROTOCOL: u16 = 9;
    pub(crate) const PATH_MTU_DISCOVERY: u16 = 10;
    pub(crate) const ENCAP_TYPE: u16 = 15;
    pub(crate) const ENCAP_FLAGS: u16 = 16;
    pub(crate) const ENCAP_SOURCE_PORT: u16 = 17;
    pub(crate) const ENCAP_PORT: u16 = 18;
    /// `TUNNEL_ENCAP_GUE`
    pub(crate) const GUE: u16 = 2;
    /// `TUNNEL_ENCAP_FLAG_CSUM6`: UDP over IPv6 without a checksum is dropped at the other end.
    pub(crate) const CHECKSUM_V6: u16 = 2;
    /// `IP6_TNL_F_IGN_ENCAP_LIMIT`
    pub(crate) const NO_ENCAP_LIMIT: u32 = 1;
}

/// `FOU_CMD_*`, `FOU_ATTR_*` (`include/uapi/linux/fou.h`)
pub(super) mod fou {
    pub(crate) const NAME: &str = "fou";
    pub(crate) const VERSION: u8 = 1;
    pub(crate) const ADD: u8 = 1;
    pub(crate) const DELETE: u8 = 2;
    pub(crate) const GET: u8 = 3;
    pub(crate) const PORT: u16 = 1;
    pub(crate) const FAMILY: u16 = 2;
    pub(crate) const TYPE: u16 = 4;
    /// `FOU_ENCAP_GUE`
    pub(crate) const GUE: u8 = 2;
}

/// `IFA_*`
pub(super) mod address {
    /// Bytes of `struct ifaddrmsg`.
    pub(crate) const HEADER: usize = 8;
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const LOCAL: u16 = 2;
    pub(crate) const FLAGS: u16 = 8;
    /// `IFA_F_NODAD`
    pub(crate) const NO_DUPLICATE_DETECTION: u32 = 0x02;
    /// `IFA_F_NOPREFIXROUTE`
    pub(crate) const NO_PREFIX_ROUTE: u32 = 0x200;
}

/// `RTA_*`, `RTN_*`, `RT_TABLE_*`
pub(super) mod route {
    /// Bytes of `struct rtmsg`.
    pub(crate) const HEADER: usize = 12;
    pub(crate) const DESTINATION: u16 = 1;
    pub(crate) const OUT_LINK: u16 = 4;
    pub(crate) const GATEWAY: u16 = 5;
    pub(crate) const PRIORITY: u16 = 6;
    pub(crate) const PREFERRED_SOURCE: u16 = 7;
    pub(crate) const TABLE: u16 = 15;
    pub(crate) const VIA: u16 = 18;
    /// `RTN_UNICAST`
    pub(crate) const UNICAST: u8 = 1;
    /// `RTN_LOCAL`
    pub(crate) const LOCAL: u8 = 2;
    /// `RT_TABLE_COMPAT`: stands in the header for tables above 255.
    pub(crate) const TABLE_COMPAT: u8 = 252;
    /// `RT_TABLE_MAIN`
    pub(crate) const TABLE_MAIN: u32 = 254;
    /// `RT_TABLE_LOCAL`
    pub(crate) const TABLE_LOCAL: u32 = 255;
    /// `RTPROT_KERNEL`
    pub(crate) const PROTOCOL_KERNEL: u8 = 2;
    /// `RT_SCOPE_NOWHERE`: any, in a deletion.
    pub(crate) const ANY_SCOPE: u8 = 255;
    /// `RTM_F_CLONED`
    pub(crate) const CLONED: u32 = 0x200;
    /// `RTM_F_FIB_MATCH`
    pub(crate) const FIB_MATCH: u32 = 0x2000;
}

/// `FRA_*`
pub(super) mod rule {
    /// Bytes of `struct fib_rule_hdr`.
    pub(crate) const HEADER: usize = 12;
    pub(crate) const SOURCE: u16 = 2;
    pub(crate) const PRIORITY: u16 = 6;
    pub(crate) const MARK: u16 = 10;
    pub(crate) const SUPPRESS_PREFIX_LENGTH: u16 = 14;
    pub(crate) const TABLE: u16 = 15;
    pub(crate) const MARK_MASK: u16 = 16;
    pub(crate) const PAD: u16 = 18;
    pub(crate) const PROTOCOL: u16 = 21;
    /// `FR_ACT_TO_TBL`
    pub(crate) const TO_TABLE: u8 = 1;
}

/// `RTNLGRP_*`
pub(super) mod group {
    pub(crate) const LINK: i32 = 1;
    pub(crate) const V4_ADDRESS: i32 = 5;
    pub(crate) const V4_ROUTE: i32 = 7;
    pub(crate) const V4_RULE: i32 = 8;
    pub(crate) const V6_ADDRESS: i32 = 9;
    pub(crate) const V6_ROUTE: i32 = 11;
    pub(crate) const V6_RULE: i32 = 19;
}

//! Numbers of `include/uapi/linux/netfilter/nf_tables.h`, as far as they are used here.

/// `NFNL_SUBSYS_NFTABLES`
pub(super) const SUBSYSTEM: u8 = 10;
/// Bytes of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;

/// `NFT_MSG_*` with the subsystem.
pub(super) mod message {
    pub(crate) const NEW_TABLE: u16 = 0xa00;
    pub(crate) const GET_TABLE: u16 = 0xa01;
    pub(crate) const DELETE_TABLE: u16 = 0xa02;
    pub(crate) const NEW_CHAIN: u16 = 0xa03;
    pub(crate) const GET_CHAIN: u16 = 0xa04;
    pub(crate) const DELETE_CHAIN: u16 = 0xa05;
    pub(crate) const NEW_RULE: u16 = 0xa06;
    pub(crate) const GET_RULE: u16 = 0xa07;
    pub(crate) const DELETE_RULE: u16 = 0xa08;
    pub(crate) const NEW_SET: u16 = 0xa09;
    pub(crate) const GET_SET: u16 = 0xa0a;
    pub(crate) const DELETE_SET: u16 = 0xa0b;
    pub(crate) const NEW_ELEMENT: u16 = 0xa0c;
    pub(crate) const GET_ELEMENT: u16 = 0xa0d;
    pub(crate) const DELETE_ELEMENT: u16 = 0xa0e;
    pub(crate) const GET_GENERATION: u16 = 0xa10;
}

/// `NFTA_TABLE_*`
pub(super) mod table {
    pub(crate) const NAME: u16 = 1;
}

/// `NFTA_GEN_*`
pub(super) mod generation {
    pub(crate) const ID: u16 = 1;
}

/// `NFTA_CHAIN_*` and `NFTA_HOOK_*`
pub(super) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const HANDLE: u16 = 2;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
}

/// `NFTA_RULE_*` and `NFTA_LIST_ELEM`
pub(super) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const USERDATA: u16 = 7;
    pub(crate) const LIST_ELEMENT: u16 = 1;
}

/// `NFTA_SET_*`
pub(super) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LENGTH: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LENGTH: u16 = 7;
    pub(crate) const DESCRIPTION: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const DESCRIPTION_FIELDS: u16 = 2;
    pub(crate) const FIELD_LENGTH: u16 = 1;

    pub(crate) const FLAG_ANONYMOUS: u32 = 0x1;
    pub(crate) const FLAG_INTERVAL: u32 = 0x4;
    pub(crate) const FLAG_MAP: u32 = 0x8;
    pub(crate) const FLAG_CONCATENATION: u32 = 0x80;
    /// `NFT_DATA_VERDICT`
    pub(crate) const DATA_VERDICT: u32 = 0xffff_ff00;
}

/// `NFTA_SET_ELEM_*` and `NFTA_SET_ELEM_LIST_*`
pub(super) mod element {
    pub(crate) const LIST_TABLE: u16 = 1;
    pub(crate) const LIST_SET: u16 = 2;
    pub(crate) const LIST_ELEMENTS: u16 = 3;
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_END: u16 = 10;
    pub(crate) const FLAG_INTERVAL_END: u32 = 1;
}

/// `NFTA_DATA_*` and `NFTA_VERDICT_*`
pub(super) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
}

/// `NFT_META_*`
pub(super) mod meta {
    pub(crate) const MARK: u32 = 3;
    pub(crate) const IN_LINK: u32 = 6;
    pub(crate) const OUT_LINK: u32 = 7;
    pub(crate) const PROTOCOL: u32 = 16;
}

/// `NFT_CT_*`
pub(super) mod conntrack {
    pub(crate) const STATE: u32 = 0;
    pub(crate) const DIRECTION: u32 = 1;
    pub(crate) const MARK: u32 = 3;
    pub(crate) const PROTOCOL: u32 = 10;
    pub(crate) const DESTINATION_PORT: u32 = 12;
    pub(crate) const DESTINATION_V4: u32 = 20;
    pub(crate) const DESTINATION_V6: u32 = 22;
}

/// `NFT_PAYLOAD_*_HEADER`
pub(super) mod payload {
    pub(crate) const NETWORK: u32 = 1;
    pub(crate) const TRANSPORT: u32 = 2;
}

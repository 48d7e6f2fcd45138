//! Clusters out of network namespaces. Never shipped.

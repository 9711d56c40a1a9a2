"""Node isolation for agents: service accounts of DaemonSets, held to the node that they run on."""

def fused(nodes, outputs):
    return nodes

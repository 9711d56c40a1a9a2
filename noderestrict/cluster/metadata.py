"""How to ask an API server for the metadata of objects alone.

Source: the kinds of meta.k8s.io/v1 in apimachinery.
"""

METADATA, METADATA_LIST = "PartialObjectMetadata", "PartialObjectMetadataList"


def metadata_only(kind: str = METADATA) -> str:
    """Return the media type of an answer that holds metadata alone.

    Args:
        kind: of the answer.
    """
    return f"application/json;as={kind};g=meta.k8s.io;v=v1"

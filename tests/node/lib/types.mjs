// The types of a document, for the library that is given: Yjs of any version.

// All types that hang in a document, roots included, in the order in which they stand in it.
export const types = (Y, doc) => {
  const found = []
  const visit = type => {
    found.push(type)
    for (let item = type._start; item !== null; item = item.right) if (!item.deleted && item.content instanceof Y.ContentType) visit(item.content.type)
    for (const item of type._map.values()) if (!item.deleted && item.content instanceof Y.ContentType) visit(item.content.type)
  }
  for (const type of doc.share.values()) visit(type)
  return found
}

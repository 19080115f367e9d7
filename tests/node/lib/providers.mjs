// The published Hocuspocus providers by the version a user installs; all of one generation of Yjs.

export const loadProviders = async () => {
  const providers = {}
  for (const version of ['2', '3', '4']) {
    const { HocuspocusProvider, HocuspocusProviderWebsocket } = await import(`hocuspocus-provider-${version}`)
    providers[version] = { Provider: HocuspocusProvider, Socket: HocuspocusProviderWebsocket }
  }
  return providers
}

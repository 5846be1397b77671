export { Mesh } from './mesh.js'
export { MeshError } from './api.js'
export type { Exchange, MeshOptions, MeshSocket, MeshState, TokenClaims, View } from './api.js'
export type * from './types.js'

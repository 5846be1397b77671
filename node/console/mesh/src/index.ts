export { Mesh } from './mesh.js'
export { MeshError } from './api.js'
export type { MeshOptions, MeshSocket, MeshState, TokenClaims, View } from './api.js'
export type * from './types.js'

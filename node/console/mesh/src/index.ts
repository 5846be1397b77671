export { Mesh } from './mesh.js'
export { MeshError } from './api.js'
export type { Every, Exchange, MeshOptions, MeshSocket, MeshState, RunningCommand, TokenClaims, View } from './api.js'
export type * from './types.js'

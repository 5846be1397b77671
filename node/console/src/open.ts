import type { Mesh } from 'vc-mesh'

/** Opens a service's port in a tab of its own. Errors: one line for people. */
export async function openService(_mesh: Mesh, service: string, port: number): Promise<void> {
  throw new Error(`${service} cannot be opened on port ${port} from here yet`)
}

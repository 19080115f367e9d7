/** Excalidraw, as far as a page of ours shows it: its file menu, its library and its theme are the frame's business. */
import { Excalidraw, MainMenu, WelcomeScreen } from '@excalidraw/excalidraw'
import '@excalidraw/excalidraw/index.css'
import type { ExcalidrawProps } from '@excalidraw/excalidraw/types'

const UI_OPTIONS: NonNullable<ExcalidrawProps['UIOptions']> = {
  canvasActions: { loadScene: false, export: false, saveToActiveFile: false, toggleTheme: false, changeViewBackgroundColor: false },
}

export type BoardProps = Pick<ExcalidrawProps, 'theme' | 'viewModeEnabled' | 'name' | 'initialData' | 'excalidrawAPI' | 'onChange' | 'onPointerUpdate' | 'autoFocus'>

export function Board(props: BoardProps) {
  return (
    <Excalidraw {...props} langCode="en" isCollaborating UIOptions={UI_OPTIONS} validateEmbeddable={false} aiEnabled={false}>
      <MainMenu>
        <MainMenu.DefaultItems.SaveAsImage />
        <MainMenu.DefaultItems.SearchMenu />
        <MainMenu.DefaultItems.ClearCanvas />
        <MainMenu.DefaultItems.Help />
      </MainMenu>
      <WelcomeScreen>
        <WelcomeScreen.Hints.ToolbarHint />
        <WelcomeScreen.Center>
          <WelcomeScreen.Center.Heading>Draw together: whoever has the link sees every line as it comes.</WelcomeScreen.Center.Heading>
        </WelcomeScreen.Center>
      </WelcomeScreen>
    </Excalidraw>
  )
}
